"""A penalty of fixed weight that is pushed in the step, and the same as a layer."""

import contextlib

import keras
import numpy as np

from keras_sparseout import ActivationPenalty, metrics
from keras_sparseout.backend import variables
from keras_sparseout.callbacks.control import push_weights
from keras_sparseout.callbacks.control.penalty_push import PenaltyPush
from keras_sparseout.callbacks.control.step_variables import StepVariables
from keras_sparseout.measure import layer_selection
from keras_sparseout.measure.hooks import Overrides
from keras_sparseout.measure.step_sums import StepSums
from keras_sparseout.models import insert

WEIGHT = 0.3


class Pushing(keras.callbacks.Callback):
    """Pushes layers in each training step, with a weight that stays."""

    def __init__(self, layers, kind="l1", where=None, weight=WEIGHT, samples=100):
        super().__init__()
        self.layers, self.kind, self.where = layers, kind, where
        self.weight, self.samples = weight, samples
        self.pushes = []

    def set_model(self, model):
        super().set_model(model)
        layers = layer_selection.check_layers(self.layers)
        watched = layer_selection.select(model, layers, self.where)
        self.variables = StepVariables()
        with model.distribute_strategy.scope():
            self.variables.make("measured", push_weights.PARTS, len(watched))
        options = self.kind, self.samples, self.variables["measured"]
        self.pushes = [
            PenaltyPush(model, w, *options, i) for i, w in enumerate(watched)
        ]
        measured = {"zero_fraction": metrics.ZeroFraction()}
        self.sums = StepSums(model, "train", watched, measured, 100, control=self)

    @contextlib.contextmanager
    def acting(self):
        weight = keras.ops.convert_to_tensor(self.weight)
        with Overrides(
            [(p.watched.layer, "call", p.around(weight)) for p in self.pushes]
        ):
            yield

    def update(self, sums):
        assert set(sums) == {push.watched.name for push in self.pushes}

    def on_train_batch_begin(self, batch, logs=None):
        self.sums.arm()

    def on_train_batch_end(self, batch, logs=None):
        self.sums.disarm()

    def norms(self, number=0):
        """The norms that one of the pushes measured: of the loss, of the penalty."""
        sums = variables.to_numpy(self.variables["measured"])[:, number]
        return sums[1:3] / sums[0]


def penalized(model, name, kind="l1", epsilon=None, weight=WEIGHT, **options):
    """A copy of a model with the same penalty as a layer."""
    return insert(
        model,
        {name: lambda _: ActivationPenalty(weight, kind, epsilon=epsilon)},
        **options,
    )


def weights(model):
    return [np.array(w) for w in model.get_weights()]


def updates(model, train):
    """What a training changes in the weights of a model."""
    before = weights(model)
    train()
    return [b - a for a, b in zip(before, weights(model), strict=True)]


def assert_same(some, others, rtol=1e-4):
    """Asserts that two lists of updates are the same, and not 0."""
    assert len(some) == len(others)
    assert any(np.any(b) for b in others)
    for a, b in zip(some, others, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.max(np.abs(b)))
