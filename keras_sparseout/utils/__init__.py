"""Checks of arguments, tables, types, and layers written as text."""
