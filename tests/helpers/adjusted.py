"""A small model with an adjustable layer that tests of callbacks share."""

import keras

from keras_sparseout import Sparseout


def net(features=4, **compiled):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((features,)),
            keras.layers.Dense(8, "relu"),
            Sparseout(0.3, q=1.5, adjustable=True, name="hidden"),
            keras.layers.Dense(1),
        ]
    )
    options = {"optimizer": "sgd", "loss": "mse", "jit_compile": False}
    model.compile(**{**options, **compiled})
    return model
