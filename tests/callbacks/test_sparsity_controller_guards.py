"""What SparsityController's guards do in short epochs, and with a frozen setting."""

import keras
import numpy as np
import pytest
from controlled import X, Y, classifier, loss_of_known, mostly_dead

from keras_sparseout import SparsityController


def test_dead_units_are_told_over_short_epochs():
    model = mostly_dead()
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    controller = SparsityController(0.99, gain=0.1, verbose=0)
    with pytest.warns(UserWarning, match="units of hidden are dead"):
        model.fit(
            X[:48], Y[:48], batch_size=16, epochs=12, verbose=0, callbacks=[controller]
        )
    q = controller.history["q/hidden"]
    # Of 48 vectors an epoch, the sixth one makes them more than 256.
    assert q[:5] == sorted(set(q[:5]), reverse=True)
    assert set(q[4:]) == {q[4]}


@pytest.mark.onednn
def test_what_stopped_is_not_frozen_elsewhere():
    model = classifier()
    model.compile("adam", loss_of_known, jit_compile=False)
    y = Y.copy()
    y[300:310] = np.nan
    controller = SparsityController(0.8, every=4, gain=0.1, freeze_after=1, verbose=0)
    with pytest.warns(UserWarning, match="the loss is nan: the settings stay"):
        model.fit(
            X,
            y,
            batch_size=16,
            epochs=3,
            verbose=0,
            shuffle=False,
            callbacks=[controller],
        )
    q = controller.history["q/hidden"]
    # The loss is NaN from the nineteenth batch on, before the fifth reading.
    assert q[:4] == sorted(set(q[:4]), reverse=True)
    assert set(q[4:]) == {q[3]}
