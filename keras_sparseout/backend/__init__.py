"""Everything that is TensorFlow's own."""
