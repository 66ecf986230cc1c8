"""The TensorFlow back end."""
