"""A small model, data and a reference that tests of tracking without data share."""

import batched
import keras
import numpy as np

from keras_sparseout import SparsityTracker

# In batches of 8 the last one is partial.
X = np.random.default_rng(0).normal(size=(22, 4)).astype("float32")
Y = X.sum(1, keepdims=True)


def net():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, "relu", name="a"),
            keras.layers.Dense(5, "relu", name="b"),
            keras.layers.Dense(1, name="out"),
        ]
    )


def fit(model, *callbacks, x=X, y=Y, optimizer=None, compiled=None, **kwargs):
    """Trains, with a learning rate of 0 unless an optimizer is given."""
    optimizer = keras.optimizers.SGD(0.0) if optimizer is None else optimizer
    model.compile(optimizer, "mse", **(compiled or {}))
    options = {"batch_size": 8, "verbose": 0, "callbacks": list(callbacks), **kwargs}
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
        return batched.fit(model, x, y, **options).history
    return model.fit(x, y, shuffle=False, **options).history


def tracker(**kwargs):
    return SparsityTracker(**{"sample_size": 100, "verbose": 0, **kwargs})


def hoyer(a):
    """Mean of Hoyer's sparsity over the vectors that are not silent."""
    a = np.abs(a[np.any(a != 0, axis=-1)].astype("float64"))
    root = np.sqrt(a.shape[-1])
    ratios = a.sum(-1) / np.sqrt(np.square(a).sum(-1))
    return np.mean((root - ratios) / (root - 1))


def activations(model, name, x=X):
    """The output of a layer, from the graph of a functional model."""
    part = keras.Model(model.inputs[0], model.get_layer(name).output)
    return np.asarray(part(x, training=False))


def figures(model, x=X, prefix=""):
    """The tracker's default metrics for `net`, computed with numpy."""
    expected = {}
    for name in ("a", "b"):
        a = activations(model, name, x)
        expected[f"{prefix}hoyer/{name}"] = hoyer(a)
        expected[f"{prefix}zero_fraction/{name}"] = np.mean(a == 0)
    for metric in ("hoyer", "zero_fraction"):
        of_layers = [expected[f"{prefix}{metric}/{name}"] for name in ("a", "b")]
        expected[prefix + metric] = np.mean(of_layers)
    return expected


def is_clean(model):
    """Whether no tracker left anything in a model."""
    holders = [model, *model.layers]
    return not any(
        {"train_step", "test_step", "call"} & vars(h).keys() for h in holders
    )
