"""Training steps that TensorFlow traces once.

It traces a step again that made variables, which takes a third of a short fit. Adam
makes its own in the first step, unless it was built before.
"""

import contextlib

import keras
import pytest


@contextlib.contextmanager
def once():
    """Builds the optimizer of each model before its first step."""
    make = keras.Model.make_train_function

    def make_when_built(model, *arguments, **options):
        optimizer = getattr(model, "optimizer", None)
        if optimizer is not None and model.built and not optimizer.built:
            optimizer.build(model.trainable_variables)
        return make(model, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "make_train_function", make_when_built)
        yield
