"""Ways to ask a model for a sparsity, and how near each comes."""
