"""Checks of arguments, tables, and layers written as text."""
