"""A run that was interrupted goes on by a file, as if it had not been."""

import functools
import json
import os
import shutil

import batched
import keras
import numpy as np
import pytest

from keras_sparseout import (
    ActivationPenalty,
    Sparseout,
    SparsityController,
    TargetSparsity,
)
from keras_sparseout.callbacks.control import run_backup
from keras_sparseout.callbacks.control.messages import ControllerMessages
from keras_sparseout.callbacks.progress import Progress

X = np.random.default_rng(0).normal(size=(96, 6)).astype("float32")
Y = X.sum(1, keepdims=True)


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def net():
    keras.utils.set_random_seed(3)
    layers = [
        keras.layers.Dense(16, "relu", name="relu"),
        keras.layers.BatchNormalization(),
        TargetSparsity(0.3, adjustable=True, name="cut"),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile(keras.optimizers.SGD(0.05), "mse", jit_compile=False)
    return model


def controller(folder=None, actuator="penalty", target=0.6, **kwargs):
    layers = ["relu"] if actuator == "penalty" else ["cut"]
    options = {"x": X[:32], "every": 4, "verbose": 0, "backup_dir": folder, **kwargs}
    return SparsityController(target, actuator=actuator, layers=layers, **options)


def backup(folder, **kwargs):
    return keras.callbacks.BackupAndRestore(str(folder), **kwargs)


def fit(*callbacks, epochs=4, **kwargs):
    model = net()
    options = {"batch_size": 8, "epochs": epochs, "verbose": 0, **kwargs}
    history = batched.fit(model, X, Y, callbacks=list(callbacks), **options)
    return model.get_weights(), history.history


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A function that fills a folder as two epochs do, and returns the file of it.

    For each actuator it trains once.
    """
    folders = {}

    def fill(folder, actuator="penalty"):
        if actuator not in folders:
            own = folders[actuator] = tmp_path_factory.mktemp("interrupted")
            with pytest.raises(KeyboardInterrupt):
                fit(controller(own, actuator), backup(own), Interrupt())
        shutil.copytree(folders[actuator], folder, dirs_exist_ok=True)
        return folder / run_backup.FILE_NAME

    return fill


def content_of(file):
    with np.load(file) as arrays:
        return json.loads(arrays["content"].tobytes())


def write(file, content):
    text = np.frombuffer(json.dumps(content).encode(), "uint8")
    np.savez(file, content=text)


@pytest.fixture(scope="module")
def whole():
    """A function that returns weights and history of a run, for each actuator once.

    It trains when a test calls it, with the options that all tests have.
    """
    return functools.cache(lambda actuator: fit(controller(None, actuator)))


@pytest.mark.parametrize(
    ("actuator", "first"), [("penalty", True), ("threshold", False)]
)
def test_a_resumed_run_is_the_run_that_was_not_interrupted(
    tmp_path, whole, interrupted, actuator, first
):
    folder = tmp_path / "backup"
    file = interrupted(folder, actuator)
    assert list(content_of(file)["epochs"]) == ["1", "2"]
    callbacks = [controller(folder, actuator), backup(folder)]
    weights, history = fit(*(callbacks if first else callbacks[::-1]))
    for key, figures in whole(actuator)[1].items():
        assert history[key] == figures[2:]
    for a, b in zip(weights, whole(actuator)[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not folder.exists()


@pytest.mark.filterwarnings("ignore:.* of the units of .* are dead")
def test_a_resumed_run_spares_the_layers_that_were_spared_for_dead_units(tmp_path):
    """Together with others, which are pushed on."""

    def run(folder, *others):
        keras.utils.set_random_seed(3)
        dead = keras.initializers.Constant([-9.0] * 10 + [0.0] * 6)
        model = keras.Sequential([keras.Input((6,))])
        model.add(keras.layers.Dense(16, "relu", name="dead", bias_initializer=dead))
        model.add(keras.layers.Dense(16, "relu", name="live"))
        model.add(keras.layers.Dense(1))
        model.compile("sgd", "mse", jit_compile=False)
        asked = {"together": True, "sample_size": 32, "every": 1, "verbose": 0}
        control = SparsityController(0.95, backup_dir=folder, **asked)
        options = {"epochs": 4, "verbose": 0, "callbacks": [control, *others]}
        x, y = np.tile(X, (3, 1)), np.tile(Y, (3, 1))
        history = batched.fit(model, x, y, batch_size=32, **options).history
        return history["penalty/dead"], history["penalty/live"], model.get_weights()

    dead, live, weights = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, backup(tmp_path), Interrupt())
    rest = run(tmp_path, backup(tmp_path))
    assert dead == [0] * 4
    assert min(live[1:]) > 0
    assert rest[:2] == (dead[2:], live[2:])
    for a, b in zip(rest[2], weights, strict=True):
        np.testing.assert_array_equal(a, b)


class Scores(keras.callbacks.Callback):
    """Makes the last two epochs break the floor."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = (1.0, 1.0, 9.0, 9.0)[epoch]


def test_a_floor_of_accuracy_is_resumed_with_the_weights_that_it_restores(tmp_path):
    def run(folder, *others):
        control = controller(folder, min_metric=("val_loss", 2.0))
        return fit(Scores(), control, *others)

    weights, history = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, backup(tmp_path), Interrupt())
    resumed, rest = run(tmp_path, backup(tmp_path))
    for key, figures in history.items():
        assert rest[key] == figures[2:]
    for a, b in zip(resumed, weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("actuator", ["weight", "q"])
def test_a_floor_of_layers_with_a_knob_is_resumed_too(tmp_path, actuator):
    """The state of their loop is in the layer, that of the floor is not."""

    def run(folder, *others):
        keras.utils.set_random_seed(3)
        knob = {
            "weight": ActivationPenalty(0.0, adjustable=True, name="knob"),
            "q": Sparseout(0.3, adjustable=True, name="knob", jit_compile=False),
        }[actuator]
        hidden = keras.layers.Dense(16, "relu")
        model = keras.Sequential([keras.Input((6,)), hidden, knob])
        model.add(keras.layers.Dense(1))
        model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
        asked = {"min_metric": ("val_loss", 2.0, "min"), "every": 2, "verbose": 0}
        control = SparsityController(0.7, backup_dir=folder, **asked)
        options = {"batch_size": 8, "epochs": 4, "verbose": 0}
        callbacks = [Scores(), control, *others]
        batched.fit(model, X, Y, callbacks=callbacks, **options)
        return model.get_weights()

    weights = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, backup(tmp_path), Interrupt())
    for a, b in zip(run(tmp_path, backup(tmp_path)), weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not list(tmp_path.glob("*.npz"))
    says = "saves nothing of this controller's floor of accuracy, .* Give backup_dir="
    with pytest.warns(UserWarning, match=says), pytest.raises(KeyboardInterrupt):
        run(None, backup(tmp_path), Interrupt())


class Ends(keras.Model):
    """Its first step shows that the last layer is its output, and one is not called."""

    def __init__(self):
        super().__init__()
        self.idle = keras.layers.ReLU(name="idle")
        self.last = keras.layers.Dense(1, "softplus", name="last")
        self.first = keras.layers.Dense(16, "relu", name="first")

    def call(self, x):
        return self.last(self.first(x))


@pytest.mark.parametrize(
    "asked",
    [{"x": X[:32], "min_metric": ("val_loss", 2.0, "min")}, {"freeze_after": 1}],
    ids=["floor", "frozen"],
)
def test_a_run_that_left_layers_out_is_resumed(tmp_path, asked):
    def run(folder, *others):
        keras.utils.set_random_seed(3)
        model = Ends()
        model(X)
        model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
        control = SparsityController(0.7, backup_dir=folder, verbose=0, **asked)
        options = {"batch_size": 8, "epochs": 4, "verbose": 0}
        callbacks = [Scores(), control, *others]
        history = batched.fit(model, X, Y, callbacks=callbacks, **options).history
        return history["penalty/first"], model.get_weights()

    penalties, weights = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, backup(tmp_path), Interrupt())
    rest, resumed = run(tmp_path, backup(tmp_path))
    assert rest == penalties[2:]
    for a, b in zip(resumed, weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_the_file_it_begins_anew_and_says_so(tmp_path, whole, interrupted):
    interrupted(tmp_path).unlink()
    with pytest.warns(UserWarning, match="Give backup_dir=") as caught:
        _, history = fit(controller(), backup(tmp_path))
    own = [c for c in caught if "SparsityController" in str(c.message)]
    assert len(own) == 1  # Keras' own warnings of NumPy are beside it.
    assert history["penalty/relu"] != whole("penalty")[1]["penalty/relu"][2:]


def test_a_run_that_begins_at_another_epoch_says_that_it_begins_anew(
    tmp_path, whole, interrupted
):
    file = interrupted(tmp_path)
    with pytest.warns(UserWarning, match="of the epochs 1, 2, and .* epoch 0") as seen:
        weights, _ = fit(controller(tmp_path))
    assert str(file) in str(seen[0].message)
    assert not file.exists()  # As training is complete.
    for a, b in zip(weights, whole("penalty")[0], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("change", "received"),
    [
        ({"target": 0.5}, r"target=\[0.6\], where this one has \[0.5\]"),
        ({"actuator": "threshold"}, "actuator='penalty'"),
        ({"kind": "l1"}, "kind='hoyer_square'"),
        ({"metric": "hoyer"}, "metric='zero_fraction'"),
    ],
)
def test_the_state_of_another_control_is_an_error(
    tmp_path, interrupted, change, received
):
    file = interrupted(tmp_path)
    with pytest.raises(ValueError, match=received) as error:
        fit(controller(tmp_path, **change), backup(tmp_path))
    assert f"delete {str(file)!r} to begin anew" in str(error.value)


def test_a_broken_file_is_an_error_that_names_it(tmp_path, interrupted):
    file = interrupted(tmp_path)
    missing, short, newer = (content_of(file) for _ in range(3))
    del missing["epochs"]["2"][0]["units"]
    short["epochs"]["2"][0]["step"][0].pop()
    newer["format"] = 9
    whole = file.read_bytes()
    for content in (missing, short, newer, [], whole[:-9], b"", b"{}"):
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            write(file, content)
        with pytest.raises(ValueError, match="Delete it to begin anew") as error:
            fit(controller(tmp_path), backup(tmp_path))
        assert str(file) in str(error.value)


class Epoch:
    """What is saved of an epoch, without a run."""

    def identity(self):
        return {"target": [0.6]}

    def state(self):
        return {"step": [0.5]}

    def weights(self):
        return [np.ones(3)]


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    messages = ControllerMessages(verbose=0)
    given = keras.callbacks.Callback(), Progress(), messages
    saving = run_backup.RunBackup(tmp_path, *given)
    saving.end_epoch(0, Epoch())
    [file] = tmp_path.iterdir()
    before = file.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        saving.end_epoch(1, Epoch())
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_the_file_stays_where_the_backup_of_the_weights_stays(tmp_path, interrupted):
    file = interrupted(tmp_path)
    fit(controller(tmp_path), backup(tmp_path, delete_checkpoint=False), epochs=3)
    assert file.exists()
    # All epochs were trained: only the file is left to be removed.
    fit(controller(tmp_path), backup(tmp_path), epochs=3)
    assert not tmp_path.exists()


def test_two_controllers_need_two_folders(tmp_path):
    pair = [controller(tmp_path), controller(tmp_path, "threshold")]
    with pytest.raises(ValueError, match="another folder for each"):
        fit(*pair, epochs=1)


@pytest.mark.parametrize("folder", [3, "", "gs://bucket/run", b"run"])
def test_a_folder_that_is_none_is_an_error(folder):
    with pytest.raises(ValueError, match="`backup_dir` must be a folder") as error:
        SparsityController(0.5, backup_dir=folder)
    assert f"Received: backup_dir={folder!r}" in str(error.value)
