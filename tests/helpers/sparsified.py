"""What tests of `sparsify` share: small models, data for them, and their zeros."""

import keras
import numpy as np
from keras import layers as kl

from keras_sparseout import TargetSparsity


def normal(*shape, seed=0):
    """Normally distributed numbers of float32."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def gated(units=64):
    """A model with a GELU, a SiLU and a tanh, of 16 inputs."""
    return keras.Sequential(
        [
            keras.Input((16,)),
            kl.Dense(units, "gelu", name="first"),
            kl.Dense(units, "silu", name="second"),
            kl.Dense(units, "tanh", name="third"),
            kl.Dense(3, name="head"),
        ]
    )


def thresholds(model):
    """The threshold layers of a model, by name, in models inside it too."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found.update(thresholds(layer))
        elif isinstance(layer, TargetSparsity):
            found[layer.name] = layer
    return found


def run(model, x):
    """What a model returns for `x`, without compiling it."""
    x = keras.tree.map_structure(keras.ops.convert_to_tensor, x)
    outputs = model(x, training=False)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)


def outputs_of(model, names, x):
    """What layers of a model return for `x`, a list."""
    layers = [model.get_layer(name).output for name in names]
    return keras.tree.flatten(run(keras.Model(model.inputs, layers), x))


def zeros(model, x):
    """The share of zeros behind each threshold of a model without models inside."""
    names = list(thresholds(model))
    return {
        name: np.mean(values == 0)
        for name, values in zip(names, outputs_of(model, names, x), strict=True)
    }
