"""Nothing of ours makes numpy 2 warn of how Keras turns variables into arrays."""

import warnings

import keras
import numpy as np

from keras_sparseout import (
    Sparseout,
    SparseoutScheduler,
    SparsityController,
    SparsityTracker,
    metrics,
)

X = np.abs(np.random.default_rng(0).normal(size=(16, 4))).astype("float32")


def test_variables_are_read_without_a_warning(tmp_path):
    layer = Sparseout(0.3, q=1.5, adjustable=True)
    model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callbacks = [
        SparsityTracker(metrics=["hoyer", "firing_rate"], log_dir=tmp_path, verbose=0),
        SparsityController(0.3, "gini", x=X, every=1, verbose=0),
        SparseoutScheduler(
            rate=keras.optimizers.schedules.CosineDecay(0.5, 4), verbose=0
        ),
    ]
    histogram = metrics.ActivationHistogram()
    # Tests leave out this warning, since Keras itself makes it when it saves.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(
            *(X, X[:, :1]),
            validation_data=(X, X[:, :1]),
            epochs=2,
            verbose=0,
            callbacks=callbacks,
        )
        histogram.update_state(X)
        assert histogram.quantile(1) > 1
        assert histogram.gini() > 0
        assert len(histogram.buckets()) > 1
