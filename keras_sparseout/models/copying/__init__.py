"""Makes a model anew, with other layers in it and a copy of all its state."""
