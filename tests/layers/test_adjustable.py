"""What adjustable layers share: their knobs, and the state that a callback keeps."""

import batched
import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import ActivationPenalty, Sparseout, SpatialSparseout1D

STATE = [1 / 3, np.nan, -1e300]
KNOBS = {
    Sparseout: {"rate": 0.3, "q": 1.5},
    SpatialSparseout1D: {"rate": 0.3, "q": 1.5},
    ActivationPenalty: {"weight": 0.3},
}
every_layer = pytest.mark.parametrize("layer", KNOBS, ids=lambda c: c.__name__)


def network(layer):
    model = keras.Sequential([keras.Input((6, 4)), keras.layers.Dense(3), layer])
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def make(layer, adjustable=True):
    return layer(**KNOBS[layer], adjustable=adjustable)


def names_in(path):
    names = []
    with h5py.File(path) as file:
        file.visit(names.append)
    return {name.split("/")[-1] for name in names}


@every_layer
def test_knobs_are_named_and_read_as_given(layer):
    for adjustable in (False, True):
        made = make(layer, adjustable)
        assert made.adjustable is adjustable
        assert made.knobs == tuple(KNOBS[layer])
        assert {name: getattr(made, name) for name in made.knobs} == KNOBS[layer]
        assert [w.name for w in made.weights] == [*KNOBS[layer]] * adjustable


@every_layer
def test_the_docstring_of_a_knob_says_what_it_is(layer):
    for name in KNOBS[layer]:
        assert "you can assign to it" in getattr(layer, name).__doc__


@pytest.mark.parametrize(
    ("layer", "adjustable", "file"),
    [
        (Sparseout, True, "model.keras"),
        (Sparseout, False, "model.weights.h5"),
        (SpatialSparseout1D, True, "model.weights.h5"),
        (ActivationPenalty, True, "model.weights.h5"),
        (ActivationPenalty, False, "model.keras"),
    ],
)
def test_files_bring_knobs_and_controller_state(tmp_path, layer, adjustable, file):
    old = network(make(layer, adjustable))
    old.layers[-1].controller_state = STATE
    if adjustable:
        for knob in KNOBS[layer]:
            setattr(old.layers[-1], knob, 0.7)
    if file == "model.keras":
        old.save(tmp_path / file)
        new = keras.saving.load_model(tmp_path / file)
    else:
        old.save_weights(tmp_path / file)
        new = network(make(layer, adjustable))
        new.load_weights(tmp_path / file)
    new = new.layers[-1]
    np.testing.assert_array_equal(new.controller_state, STATE)
    assert new.controller_state.dtype == "float64"
    expected = dict.fromkeys(KNOBS[layer], 0.7) if adjustable else KNOBS[layer]
    assert {name: getattr(new, name) for name in new.knobs} == expected


@pytest.mark.parametrize(
    ("layer", "adjustable"),
    [(Sparseout, True), (Sparseout, False), (ActivationPenalty, True)],
)
def test_what_a_file_does_not_hold_stays(tmp_path, layer, adjustable):
    path = tmp_path / "old.weights.h5"
    for old in (network(make(layer, not adjustable)), network(keras.layers.Dropout(0))):
        old.save_weights(path)
        assert "controller_state" not in names_in(path)
        new = network(make(layer, adjustable))
        new.layers[-1].controller_state = STATE
        new.load_weights(path)
        np.testing.assert_array_equal(new.layers[-1].controller_state, STATE)
        for name, value in KNOBS[layer].items():
            assert getattr(new.layers[-1], name) == value


@pytest.mark.parametrize(
    ("layer", "adjustable"), [(Sparseout, True), (ActivationPenalty, False)]
)
def test_controller_state_is_no_weight_and_not_exported(tmp_path, layer, adjustable):
    model = network(make(layer, adjustable))
    weights = [w.path for w in model.weights]
    variables = [v.path for v in model.variables]
    x, y = np.ones((8, 6, 4)), np.ones((8, 6, 3))
    batched.fit(model, x, y, verbose=0)
    model.layers[-1].controller_state = STATE
    batched.fit(model, x, y, verbose=0)
    assert [w.path for w in model.weights] == weights
    assert [v.path for v in model.variables] == variables
    tf.saved_model.save(model, tmp_path)
    assert "controller_state" not in vars(tf.saved_model.load(tmp_path))
    assert "controller_state" not in model.layers[-1].get_config()


def test_controller_state_is_a_copy_and_may_be_none_again():
    layer = Sparseout(0.5)
    assert layer.controller_state is None
    given = np.array([1.0, 2.0])
    layer.controller_state = given
    given[:] = 0
    assert layer.controller_state.tolist() == [1, 2]
    layer.controller_state = None
    assert layer.controller_state is None


@pytest.mark.parametrize("state", [1.0, [[1.0]]])
def test_controller_state_must_be_a_vector(state):
    layer = Sparseout(0.5)
    layer.controller_state = [1.0]
    with pytest.raises(ValueError, match=r"`controller_state` must be None or a vec"):
        layer.controller_state = state
    assert layer.controller_state.tolist() == [1]


class Count(keras.callbacks.Callback):
    """Counts epochs in the state of a layer."""

    def __init__(self, interrupted=False):
        super().__init__()
        self.interrupted = interrupted

    def on_epoch_begin(self, epoch, logs=None):
        if self.interrupted and epoch == 2:
            raise InterruptedError
        layer = self.model.layers[-1]
        before = [0] if layer.controller_state is None else layer.controller_state
        layer.controller_state = [before[0] + 1]


def test_a_callback_finds_its_state_in_a_resumed_run(tmp_path):
    def run(count):
        model = network(make(Sparseout))
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        x, y = np.ones((8, 6, 4)), np.ones((8, 6, 3))
        batched.fit(model, x, y, epochs=3, verbose=0, callbacks=[backup, count])
        return model.layers[-1].controller_state.tolist()

    with pytest.raises(InterruptedError):
        run(Count(interrupted=True))
    assert run(Count()) == [3]
