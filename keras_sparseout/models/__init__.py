"""What is done to a whole model."""

from keras_sparseout.models.mc_predict import mc_predict

__all__ = ["mc_predict"]
