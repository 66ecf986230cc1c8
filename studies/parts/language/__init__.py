"""The study `language`: a run, and its report."""
