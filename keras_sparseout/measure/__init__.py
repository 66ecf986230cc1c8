"""Which layers are measured, how they are read, and what the sums come to."""
