"""Which epochs are the run of a controller: its length, and what counts from its begin.

Earlier runs don't count, nor epochs before `initial_epoch`. What was before an
interruption does.
"""

import itertools
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import Sparseout, SparsityController

X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
Y = X[:, :1]


def net(*, noisy=False):
    keras.utils.set_random_seed(1)
    layers = [keras.Input((6,)), keras.layers.Dense(16, "relu", name="hidden")]
    if noisy:
        layers.append(Sparseout(0.5, adjustable=True, name="noise"))
    model = keras.Sequential([*layers, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    return model


def unknown(*lengths):
    """Data that tell no length: epochs of so many batches, the last number repeated."""
    left = itertools.chain(lengths, itertools.repeat(lengths[-1]))

    def epoch():
        for _ in range(next(left)):
            yield X, Y

    signature = tuple(tf.TensorSpec(a.shape) for a in (X, Y))
    return tf.data.Dataset.from_generator(epoch, output_signature=signature)


class Plans(keras.callbacks.Callback):
    """Notes after each batch what a controller before it is told; ends the run."""

    def __init__(self, controller, epochs=99):
        super().__init__()
        self.controller, self.left = controller, epochs
        self.ramps, self.frozen = [], []

    def on_train_batch_end(self, batch, logs=None):
        plan = self.controller._choice.stepping.plan
        self.ramps.append(plan.ramp[0])
        self.frozen.append(plan.frozen[0])

    def on_epoch_end(self, epoch, logs=None):
        self.left -= 1
        self.model.stop_training = not self.left


def fit(model, data, *callbacks, **kwargs):
    options = {"shuffle": False, "verbose": 0, **kwargs}
    return model.fit(data, callbacks=list(callbacks), **options).history


# Keras means that the data might have been longer.
pytestmark = pytest.mark.filterwarnings("ignore:Your input ran out of data")


@pytest.mark.parametrize(("trained", "initial"), [(1000, 0), (0, 7), (1000, 7)])
def test_a_run_of_unknown_length_is_planned_by_its_own_epochs(trained, initial):
    model, controller = net(), SparsityController(0.8, every=1, verbose=0)
    model.optimizer.iterations.assign(trained)
    epochs = {"initial_epoch": initial, "epochs": initial + 200}
    for _ in range(2):  # A second run with the same controller, too.
        plans = Plans(controller, epochs=3)
        fit(model, unknown(6), controller, plans, **epochs)
        # The first epoch is taken to be half over.
        guesses = [max(200 * 2 * n, 1000) / 2 for n in range(1, 7)]
        np.testing.assert_allclose(plans.ramps, [*guesses, *[600] * 12], rtol=1e-5)


def test_epochs_before_the_initial_one_are_not_among_those_before_it_freezes(capsys):
    model, controller = net(), SparsityController(0.95, freeze_after=2)
    plans = Plans(controller)
    fit(model, unknown(8), controller, plans, initial_epoch=5, epochs=8)
    assert plans.frozen == [0] * 16 + [1] * 8
    said = capsys.readouterr().out
    assert "`freeze_after` held the setting before zero_fraction of hidden c" in said
    assert "more epochs" not in said


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("noisy", [False, True])
def test_an_interrupted_run_of_unknown_length_goes_on_with_its_length(noisy, tmp_path):
    def run(*others, lengths, folder=None):
        options = {"freeze_after": 3, "gain": 0.5, "backup_dir": folder, "verbose": 0}
        controller, model = SparsityController(0.9, **options), net(noisy=noisy)
        history = fit(model, unknown(*lengths), controller, *others, epochs=4)
        return controller, history

    def backup():
        return keras.callbacks.BackupAndRestore(str(tmp_path))

    # Only the file of a penalty tells how long each epoch was.
    lengths = [4] if noisy else [6, 4]
    whole, expected = run(lengths=lengths)
    folder = None if noisy else tmp_path
    with pytest.raises(KeyboardInterrupt):
        run(backup(), Interrupt(), lengths=lengths, folder=folder)
    resumed, history = run(backup(), lengths=[4], folder=folder)
    assert resumed.history["epoch"] == [e for e in whole.history["epoch"] if e > 2]
    for key, figures in expected.items():
        assert history[key] == figures[2:], key


@pytest.mark.filterwarnings("ignore:SparsityController")
@pytest.mark.parametrize("kind", ["penalty", "q", "file"])
def test_a_floor_goes_on_in_the_last_epoch_of_a_resumed_run(kind, tmp_path):
    def run(*others):
        folder = tmp_path / "state" if kind == "file" else None
        # It is never kept, so that the layer has no state of q either.
        asked = {"min_metric": ("loss", 1e-9), "backup_dir": folder, "verbose": 0}
        model, backup = net(noisy=kind == "q"), tmp_path / "weights"
        others = *others, keras.callbacks.BackupAndRestore(str(backup))
        control = SparsityController(0.9, **asked)
        return fit(model, unknown(1), control, *others, epochs=3)

    with pytest.raises(KeyboardInterrupt):
        run(Interrupt())
    # The file of the state was not copied with the weights.
    shutil.rmtree(tmp_path / "state", ignore_errors=True)
    with pytest.warns(UserWarning, match="in the one epoch that is left of the resu"):
        assert len(run()["loss"]) == 1


def test_a_second_stage_with_a_backup_of_its_own_is_a_run_of_its_own(tmp_path):
    model = net(noisy=True)
    options = {"every": 1, "gain": 0.1, "freeze_after": 2, "verbose": 0}
    fit(model, unknown(4), SparsityController(0.5, **options), epochs=2)
    backup = keras.callbacks.BackupAndRestore(str(tmp_path))
    epochs = {"initial_epoch": 2, "epochs": 4}
    second = SparsityController(0.5, **options)
    history = fit(model, unknown(4), second, backup, **epochs)
    # Not frozen.
    assert history["q/noise"][0] != history["q/noise"][1]
