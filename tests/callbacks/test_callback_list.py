"""A list of callbacks that the user made is as it was when training has ended."""

import keras
import numpy as np
import pytest
from stepped import X, Y, net, tracker

from keras_sparseout import SparsityController
from keras_sparseout.backend import train_step
from keras_sparseout.layers import Sparseout


def compiled():
    model = keras.Sequential(
        [*net().layers[:1], Sparseout(0.2, q=1.5, adjustable=True, name="s")]
    )
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def callback_list(model, *others):
    controller = SparsityController(0.5, every=2, verbose=0)
    callbacks = [tracker(), controller, *others]
    return keras.callbacks.CallbackList(callbacks, add_history=True, model=model)


class Failing(keras.callbacks.Callback):
    broken = True

    def on_train_batch_begin(self, batch, logs=None):
        if self.broken:
            raise RuntimeError("failed")


@pytest.mark.parametrize("how", ["fit", "train_on_batch"])
def test_a_list_is_as_it_was(how):
    model = compiled()
    callbacks = callback_list(model)
    before = list(callbacks.callbacks)
    for _ in range(2):
        if how == "fit":
            # A list made by hand knows no params.
            callbacks.set_params({"epochs": 2, "steps": 3, "verbose": 0})
            options = {"batch_size": 8, "epochs": 2, "verbose": 0}
            options["validation_data"] = X, np.repeat(Y, 8, 1)
            model.fit(*options["validation_data"], callbacks=callbacks, **options)
            figures = before[0].history["hoyer"]
            assert len(figures) == 2
            assert np.isfinite(figures).all()
        else:
            callbacks.on_train_begin()
            callbacks.on_epoch_begin(0)
            callbacks.on_train_batch_begin(0)
            model.train_on_batch(X, np.repeat(Y, 8, 1))
            callbacks.on_train_batch_end(0)
            callbacks.on_epoch_end(0)
            callbacks.on_train_end()
            assert np.isfinite(before[0].history["hoyer"]).all()
        assert callbacks.callbacks == before


def test_of_evaluating_alone_and_after_a_fit_that_failed():
    model = compiled()
    callbacks = callback_list(model, failing := Failing())
    before = list(callbacks.callbacks)
    y = np.repeat(Y, 8, 1)
    model.evaluate(X, y, verbose=0, callbacks=callbacks)
    assert callbacks.callbacks == before
    assert np.isfinite(before[0].evaluated["val_hoyer"])
    with pytest.raises(RuntimeError, match="failed"):
        model.fit(X, y, verbose=0, callbacks=callbacks)
    failing.broken = False
    callbacks.callbacks.append(late := Failing())
    # Armed after that one too, which fails before.
    with pytest.raises(RuntimeError, match="failed"):
        model.fit(X, y, verbose=0, callbacks=callbacks)
    assert not isinstance(model.train_function, train_step._StandIn)
    late.broken = False
    model.fit(X, y, verbose=0, callbacks=callbacks)
    assert callbacks.callbacks == [*before, late]
