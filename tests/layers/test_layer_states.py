"""States that a layer refuses, from files, `set_weights` and other assignments."""

import batched
import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sparseout as ks

L = keras.layers
MODELS = {
    "Sparseout": lambda: ks.Sparseout(0.3, 1.5, adjustable=True, name="noisy"),
    "SpatialSparseout1D": lambda: ks.SpatialSparseout1D(
        0.3, 1.5, adjustable=True, name="noisy"
    ),
    "ActivationPenalty": lambda: ks.ActivationPenalty(
        0.3, adjustable=True, name="noisy"
    ),
    "Bridgeout": lambda: ks.Bridgeout(L.Dense(4), 0.3, adjustable=True, name="noisy"),
    "Shakeout": lambda: ks.Shakeout(
        L.Dense(4), 0.3, 0.1, adjustable=True, name="noisy"
    ),
    "SparseoutCellWrapper": lambda: L.RNN(
        ks.SparseoutCellWrapper(L.GRUCell(4), 0.3, 0.2, adjustable=True, name="noisy")
    ),
}
BAD = [
    *[("Sparseout", "rate", value) for value in (7, -1, np.nan)],
    *[("Sparseout", "q", value) for value in (-3, np.inf)],
    ("SpatialSparseout1D", "rate", 1.5),
    ("SpatialSparseout1D", "q", np.nan),
    ("ActivationPenalty", "weight", np.nan),
    ("ActivationPenalty", "weight", -np.inf),
    ("Bridgeout", "rate", -0.25),
    ("Bridgeout", "q", -np.inf),
    ("Shakeout", "rate", np.inf),
    ("Shakeout", "c", -1),
    ("SparseoutCellWrapper", "rate", 2),
    ("SparseoutCellWrapper", "recurrent_rate", np.nan),
    ("SparseoutCellWrapper", "q", -1),
]
every_bad = pytest.mark.parametrize(("name", "knob", "value"), BAD)


def network(name):
    return keras.Sequential([keras.Input((5, 4)), MODELS[name]()])


def noisy(model):
    layer = model.layers[0]
    return getattr(layer, "cell", layer)


def knobs(layer):
    return {name: getattr(layer, name) for name in layer.knobs}


def rewrite(path, name, value):
    """Replaces the one entry `name` of a weights file by `value`."""
    with h5py.File(path, "r+") as file:
        entries = []
        file.visit(entries.append)
        (entry,) = (e for e in entries if e.split("/")[-1] == name)
        del file[entry]
        file[entry] = value


@every_bad
def test_weights_that_a_knob_can_not_have_are_refused(name, knob, value):
    model = network(name)
    layer = noisy(model)
    names = [w.name for w in model.weights]
    before = model.get_weights()
    weights = [w.copy() for w in before]
    weights[names.index(knob)] = np.float32(value)
    rule = f"Layer 'noisy': `{knob}` must be .*Received: {knob}={float(value)}"
    with pytest.raises(ValueError, match=rule):
        model.set_weights(weights)
    assert getattr(layer, knob) == before[names.index(knob)]
    # The layer assigns nothing, not even the weights before the bad one.
    own = [w + 0.125 if w.size == 1 else w for w in layer.get_weights()]
    own[[w.name for w in layer.weights].index(knob)] = np.float32(value)
    kept = layer.get_weights()
    with pytest.raises(ValueError, match=rule):
        layer.set_weights(own)
    for a, b in zip(layer.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(a, b)


@every_bad
def test_a_file_of_knobs_that_can_not_be_is_refused(tmp_path, name, knob, value):
    path = tmp_path / "model.weights.h5"
    model = network(name)
    old = network(name)
    for other in noisy(old).knobs:
        setattr(noisy(old), other, 0.625)
    noisy(old).controller_state = [1.0]
    old.save_weights(path)
    rewrite(path, knob, np.float32(value))
    before = knobs(noisy(model))
    with pytest.raises(ValueError, match=f"Layer 'noisy': `{knob}` must be"):
        model.load_weights(path)
    assert knobs(noisy(model)) == before
    assert noisy(model).controller_state is None


DAMAGES = [
    ("rate", np.ones((1,), "float32"), "`rate` must be one number"),
    ("q", np.ones((2, 2), "float32"), "`q` must be one number"),
    ("seed_state", np.zeros(3, "int64"), r"`seed_state` in a file must .*\(3,\)"),
    ("seed_state", np.zeros((2, 2), "int64"), "`seed_state` in a file must be"),
    ("seed_state", np.array([np.nan, 0.0]), "`seed_state` in a file must be"),
    ("seed_state", np.int64(1), "`seed_state` in a file must be"),
    ("inner_seed_states", np.zeros(2, "int64"), "`inner_seed_states` in a file"),
    ("controller_state", np.ones((2, 2)), "`controller_state` must be"),
    ("controller_state", 1.0, "`controller_state` must be"),
]


# One of each entry in a file of a whole model, whose loading ends in the same code.
@pytest.mark.parametrize(
    ("file", "entry", "value", "rule"),
    [
        *(("model.weights.h5", *damage) for damage in DAMAGES),
        *(("model.keras", *damage) for damage in DAMAGES[::3]),
    ],
)
def test_a_damaged_file_changes_nothing(
    tmp_path, monkeypatch, file, entry, value, rule
):
    def network():
        inner = keras.Sequential([keras.Input((4,)), L.Dense(4), L.Dropout(0.5)])
        layer = ks.Bridgeout(inner, 0.3, adjustable=True, name="noisy")
        return keras.Sequential([keras.Input((4,)), layer])

    old, new = network(), network()
    old.layers[0].controller_state = [1.0, 2.0]
    old.layers[0].rate = 0.625
    old(np.ones((1, 4)), training=True)
    save = ks.Bridgeout.save_own_variables

    def damaged(layer, store):
        kept = {}
        save(layer, kept)
        for name, good in kept.items():
            store[name] = value if name == entry else good

    monkeypatch.setattr(ks.Bridgeout, "save_own_variables", damaged)
    (old.save if file == "model.keras" else old.save_weights)(tmp_path / file)
    if file == "model.keras":
        with pytest.raises(ValueError, match=f"Layer 'noisy': {rule}"):
            keras.saving.load_model(tmp_path / file)
        return
    before = [v.numpy().tolist() for v in new.layers[0].non_trainable_variables]
    with pytest.raises(ValueError, match=f"Layer 'noisy': {rule}"):
        new.load_weights(tmp_path / file)
    after = [v.numpy().tolist() for v in new.layers[0].non_trainable_variables]
    assert after == before
    assert new.layers[0].controller_state is None


def test_a_number_that_float32_can_not_hold_is_refused():
    with pytest.raises(ValueError, match=r"Layer 'big': `weight` .*: weight=inf"):
        ks.ActivationPenalty(1e39, adjustable=True, name="big")
    layer = ks.ActivationPenalty(0.5, adjustable=True, name="big")
    with pytest.raises(ValueError, match=r"Layer 'big': `weight` .*: weight=inf"):
        layer.weight = 1e39
    assert layer.weight == 0.5
    layer = ks.Sparseout(0.5, adjustable=True, name="big")
    with pytest.raises(ValueError, match=r"Layer 'big': `q` .* Received: q=inf"):
        layer.weights[1].assign(1e39)
    assert layer.q == 2


@pytest.mark.parametrize("value", [[0.5], "x", np.ones((2, 2))])
def test_a_knob_is_one_number(value):
    layer = ks.Sparseout(0.5, adjustable=True, name="noisy")
    with pytest.raises(ValueError, match="Layer 'noisy': `rate` must be one number"):
        layer.weights[0].assign(value)
    assert layer.rate == 0.5


@pytest.mark.parametrize("state", ["a", ["a", "b"], [1j], {"a": 1}, [[1.0]]])
def test_what_is_no_vector_of_numbers_is_no_state_of_a_controller(state):
    layer = ks.Sparseout(0.5, name="noisy")
    layer.controller_state = [1.0]
    with pytest.raises(ValueError, match="Layer 'noisy': `controller_state` must be"):
        layer.controller_state = state
    assert layer.controller_state.tolist() == [1]


def test_good_weights_go_in_and_tensors_too():
    layer = ks.Sparseout(0.5, 1.5, adjustable=True)
    layer.set_weights([np.float32(0.25), np.float32(3)])
    assert (layer.rate, layer.q) == (0.25, 3)
    rate = layer.weights[0]
    for value in (0.125, tf.constant(0.25), tf.Variable(0.5), keras.Variable(0.75)):
        rate.assign(value)
        assert layer.rate == float(keras.ops.convert_to_numpy(value))
    tf.function(lambda: rate.assign(tf.constant(0.375)))()
    assert layer.rate == 0.375
    with pytest.raises(ValueError, match="expecting 2 weights"):
        layer.set_weights([np.float32(0.25)])


def test_variables_of_knobs_are_found_under_the_name_of_the_layer():
    model = network("Sparseout")
    assert [w.path for w in model.weights] == ["noisy/rate", "noisy/q"]


def controlled():
    """A model with a layer that a controller can move."""
    layers = [L.Dense(8, "relu"), ks.Sparseout(0.5, adjustable=True, name="noisy")]
    model = keras.Sequential([keras.Input((4,)), *layers, L.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def fit(model):
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    controller = ks.SparsityController(0.6, every=2, verbose=0)
    options = {"batch_size": 4, "verbose": 0, "callbacks": [controller]}
    batched.fit(model, x, x[:, :1], **options)


def test_a_state_that_a_controller_can_not_have_left_is_refused():
    model = controlled()
    fit(model)
    layer = model.layers[1]
    good = layer.controller_state
    fit(model)
    for place, value in [(0, np.nan), (1, np.nan), (4, np.inf), (7, np.nan)]:
        bad = good.copy()
        bad[place] = value
        layer.controller_state = bad
        weights = model.get_weights()
        with pytest.raises(ValueError, match="Layer 'noisy': `controller_state` must"):
            fit(model)
        for a, b in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(a, b)
    layer.controller_state = good[:-1]
    with pytest.raises(ValueError, match="Set it to None for the controller to begin"):
        fit(model)
    layer.controller_state = None
    fit(model)
    # A controller leaves the state of another callback alone.
    layer.controller_state = [1.0, np.nan]
    fit(model)
