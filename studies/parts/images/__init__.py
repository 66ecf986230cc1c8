"""The study `images`: its plan, a run, its arms, tables and pictures."""
