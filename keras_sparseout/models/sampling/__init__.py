"""Noise in the noise layers alone, from seeds of its own, for `mc_predict`."""
