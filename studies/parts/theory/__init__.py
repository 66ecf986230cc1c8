"""The study `theory`: means over all masks, tables and a picture."""
