"""The study `cost`: its models, and its tables."""
