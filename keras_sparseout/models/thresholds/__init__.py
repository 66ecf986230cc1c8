"""Finds the thresholds of `sparsify` on data, and spreads zeros over layers."""
