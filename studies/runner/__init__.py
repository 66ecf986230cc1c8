"""Runs studies: what is missing, here or on Ray, and what came of it."""
