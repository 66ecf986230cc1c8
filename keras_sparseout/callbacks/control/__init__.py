"""What a SparsityController is made of."""
