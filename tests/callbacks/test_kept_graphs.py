"""What callbacks keep in memory from one fit to the next."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from stepped import X, Y, fit, tracker

from keras_sparseout import Sparseout, SparsityController
from keras_sparseout.measure import layer_sums


def callbacks():
    controller = SparsityController(0.7, x=X, every=2, verbose=0)
    return [tracker(), tracker(x=X, metrics="rms"), controller]


def net():
    layers = [
        keras.layers.Dense(8, "relu"),
        Sparseout(0.3, adjustable=True, jit_compile=False),
        keras.layers.Dense(1),
    ]
    return keras.Sequential([keras.Input((4,)), *layers])


def graphs():
    gc.collect()
    return sum(isinstance(o, tf.Graph) for o in gc.get_objects())


def kept(fit_once):
    """How many graphs a fit keeps, when what all share is there."""
    fit_once()
    before = graphs()
    fit_once()
    return graphs() - before


@pytest.mark.usefixtures("gradients_of_tensorflow")
def test_graphs_of_the_same_and_of_new_callbacks():
    model, same = net(), callbacks()
    compiled = {"jit_compile": False}
    fit(model, compiled=compiled)
    options = {"batch_size": 8, "verbose": 0}
    assert kept(lambda: model.fit(X, Y, callbacks=same, **options)) == 0
    new = kept(lambda: model.fit(X, Y, callbacks=callbacks(), **options))
    assert new <= 2 * kept(lambda: fit(model, compiled=compiled))


@pytest.mark.usefixtures("gradients_of_tensorflow")
def test_a_model_that_was_pushed_is_freed():
    layers = [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    controller = SparsityController(0.7, verbose=0)
    fit(model, controller, compiled={"jit_compile": False})
    alive = weakref.ref(model)
    del model, layers, controller
    keras.backend.clear_session()
    gc.collect()
    assert alive() is None


def test_new_callbacks_share_what_was_compiled():
    options = {"compiled": {"jit_compile": False}}
    model = net()
    fit(model, tracker(), **options)
    before = dict(layer_sums._COMPILED)
    fit(model, tracker(), **options)
    fit(net(), tracker(), **options)
    assert dict(layer_sums._COMPILED) == before
    for size in range(layer_sums._MOST_COMPILED + 1):
        activations = [(tf.zeros((2, size + 2)), None)]
        layer_sums._compiled(tracker().metrics, activations)
    assert len(layer_sums._COMPILED) == layer_sums._MOST_COMPILED
    fit(model, t := tracker(), **options)
    assert np.isfinite(t.history["zero_fraction"]).all()
