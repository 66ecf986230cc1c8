"""The study `sparsity`: its models, curves and findings."""
