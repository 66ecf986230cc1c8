"""Which layers are read, how they are read, and what the sums come to."""
