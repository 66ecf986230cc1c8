"""SparsityTracker without probe data: its figures are those of the batches."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from stepped import X, Y, activations, figures, fit, hoyer, is_clean, net, tracker

from keras_sparseout import Sparseout, SparsityTracker, metrics

# For tests in which the graph does not matter: tracing takes time.
EAGER = {"run_eagerly": True}


def test_figures_are_those_of_the_training_and_validation_batches():
    model = net()
    t = tracker()
    history = fit(model, t, epochs=2, validation_data=(X[:11], Y[:11]))
    expected = figures(model) | figures(model, X[:11], "val_")
    for key, value in expected.items():
        assert history[key] == pytest.approx([value] * 2, rel=1e-5)
        assert t.history[key] == history[key]
    assert set(t.history) == {"epoch", *expected}
    assert t.history["epoch"] == [1, 2]
    assert t.evaluated == {k: history[k][1] for k in expected if k.startswith("val_")}
    assert is_clean(model)


@pytest.mark.onednn
@pytest.mark.parametrize(
    "how", ["steps_per_execution", "jit_compile", "run_eagerly", "accumulation"]
)
def test_figures_are_right_however_the_model_is_compiled(how):
    model = net()
    optimizer, compiled = None, {}
    if how == "accumulation":
        optimizer = keras.optimizers.SGD(0.0, gradient_accumulation_steps=2)
    else:
        compiled[how] = 2 if how == "steps_per_execution" else True
    t = tracker()
    # A partial batch, except with XLA, which would compile it once more.
    train, test = (X[:16], X[:8]) if how == "jit_compile" else (X, X[:9])
    options, expected = {"compiled": compiled}, figures(model, train)
    if how != "accumulation":  # Which is of gradients.
        options["validation_data"] = test, Y[: len(test)]
        expected |= figures(model, test, "val_")
    fit(model, t, x=train, y=Y[: len(train)], optimizer=optimizer, **options)
    for key, value in expected.items():
        assert t.history[key] == [pytest.approx(value, rel=1e-5)]
    assert is_clean(model)


def test_figures_are_sums_over_the_replicas(capsys):
    # Collective ops, the default, mistake models of two strategies for each other.
    to_one = tf.distribute.ReductionToOneDevice()
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], to_one).scope():
        # It is built before the first batch, and then measured as a built one is.
        model = keras.Sequential(net().layers)
        t = tracker(verbose=1, metrics=("hoyer", "zero_fraction", "firing_rate"))
        fit(model, t, validation_data=(X[:9], Y[:9]))
        t._training.arm()
        model.train_on_batch(X[:8], Y[:8])
        assert t._training.steps() == 1
    reference = net()
    reference.set_weights(model.get_weights())
    for key, value in (figures(reference) | figures(reference, X[:9], "val_")).items():
        assert t.history[key] == [pytest.approx(value, rel=1e-5)]
    rates = (activations(reference, "a") > 0).mean(0)
    np.testing.assert_allclose(t.units["firing_rate/a"], rates, rtol=1e-6)
    # Once on each replica is once.
    assert "times" not in capsys.readouterr().out


def test_sample_size_is_how_many_of_each_batch_are_measured():
    model = net()
    t = tracker(sample_size=3)
    fit(model, t, compiled=EAGER)
    seen = np.concatenate([X[start : start + 3] for start in (0, 8, 16)])
    for key, value in figures(model, seen).items():
        assert t.history[key] == [pytest.approx(value, rel=1e-5)]


def masked():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(7, 4, mask_zero=True, name="embedding")(inputs)
    sequences = keras.layers.LSTM(6, return_sequences=True, name="lstm")(x)
    x = keras.layers.SimpleRNN(3, name="last")(sequences)
    return keras.Model(inputs, keras.layers.Dense(1, name="out")(x))


def test_masked_timesteps_do_not_count():
    tokens = np.random.default_rng(0).integers(1, 7, (20, 5))
    lengths = np.random.default_rng(1).integers(1, 6, 20)
    tokens[np.arange(5) >= lengths[:, None]] = 0
    model = masked()
    trackers = [
        tracker(layers=["lstm", "last"], metrics={side: "hoyer"}, where=side)
        for side in ("output", "input")
    ]
    fit(model, *trackers, x=tokens, y=np.ones((20, 1)), compiled=EAGER)
    history = trackers[0].history | trackers[1].history
    for key, source in {
        "output/lstm": "lstm",
        "output/last": "last",
        "input/lstm": "embedding",
        "input/last": "lstm",
    }.items():
        a = activations(model, source, tokens)
        if a.ndim == 3:  # The mean over samples of the means over their own steps.
            expected = np.mean([hoyer(s[:n]) for s, n in zip(a, lengths, strict=True)])
        else:
            expected = hoyer(a)
        assert history[key] == [pytest.approx(expected, rel=1e-4)]


def test_masked_timesteps_of_backward_and_wrapped_layers_do_not_count():
    tokens = np.random.default_rng(0).integers(1, 7, (20, 5))
    lengths = np.random.default_rng(1).integers(1, 3, 20)
    tokens[np.arange(5) >= lengths[:, None]] = 0
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(7, 4, mask_zero=True, name="embedding")(inputs)
    rnn = keras.layers.SimpleRNN(6, return_sequences=True, name="rnn")
    x = keras.layers.Bidirectional(rnn, name="both")(x)
    each = keras.layers.Dense(5, "relu")
    x = keras.layers.TimeDistributed(each, name="each")(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, keras.layers.Dense(1, name="out")(x))
    trackers = [tracker(metrics="hoyer", x=x) for x in (None, tokens)]
    fit(model, *trackers, x=tokens, y=np.ones((20, 1)), compiled=EAGER)
    both, each = (activations(model, name, tokens) for name in ("both", "each"))
    expected = {
        "both/forward_rnn": both[..., :6],
        "both/backward_rnn": both[..., 6:],
        "each": each,
    }
    for name, a in expected.items():
        value = np.mean([hoyer(s[:n]) for s, n in zip(a, lengths, strict=True)])
        value = [pytest.approx(value, rel=1e-4)]
        assert trackers[0].history[f"hoyer/{name}"] == value
        assert trackers[1].history[f"val_hoyer/{name}"] == value


def test_masks_that_layers_give_their_outputs_count():
    """Nested models and attention do so in `call`. Attention takes its input's away."""
    tokens = np.random.default_rng(0).integers(1, 7, (16, 5))
    tokens[:, 2:] = 0
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,), dtype="int32")
    layers = [keras.layers.Embedding(7, 4, mask_zero=True), keras.layers.Dense(6)]
    inner = keras.Sequential([keras.Input((5,), dtype="int32"), *layers], name="inner")
    sequences = inner(inputs)
    x = keras.layers.MultiHeadAttention(2, 3, name="attention")(sequences, sequences)
    x = keras.layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, keras.layers.Dense(1, name="out")(x))
    names = ["inner", "attention"]
    trackers = [
        tracker(layers=names, metrics="hoyer"),
        tracker(layers=names, metrics="hoyer", x=tokens),
        tracker(layers="attention", metrics={"input": "hoyer"}, where="input"),
    ]
    fit(model, *trackers, x=tokens, y=np.ones((16, 1)), compiled=EAGER)
    a = {name: activations(model, name, tokens)[:, :2] for name in names}
    expected = {name: [pytest.approx(hoyer(a[name]), rel=1e-4)] for name in names}
    for name in names:
        assert trackers[0].history[f"hoyer/{name}"] == expected[name]
        assert trackers[1].history[f"val_hoyer/{name}"] == expected[name]
    assert trackers[2].history["input/attention"] == expected["inner"]


def test_metrics_of_units_give_an_array_for_each_layer():
    model = net()
    names = ("firing_rate", "lifetime_sparseness", "dead_units", "rms")
    t = tracker(metrics=names)
    fit(model, t, validation_data=(X[:9], Y[:9]), compiled=EAGER)
    for prefix, x in (("", X), ("val_", X[:9])):
        for layer in ("a", "b"):
            a = activations(model, layer, x).astype("float64")
            rates = (a > 0).mean(0)
            np.testing.assert_allclose(
                t.units[f"{prefix}firing_rate/{layer}"], rates, rtol=1e-6
            )
            square = np.square(a).mean(0)
            alive = square > 0
            lifetime = (1 - a.mean(0)[alive] ** 2 / square[alive]) / (1 - 1 / len(x))
            np.testing.assert_allclose(
                t.units[f"{prefix}lifetime_sparseness/{layer}"][alive],
                lifetime,
                rtol=1e-5,
            )
            expected = {
                "firing_rate": rates.mean(),
                "lifetime_sparseness": lifetime.mean(),
                "dead_units": np.mean(rates == 0),
                "rms": np.sqrt(np.square(a).mean()),
            }
            for name, value in expected.items():
                assert t.history[f"{prefix}{name}/{layer}"] == [
                    pytest.approx(value, rel=1e-5)
                ]


def test_readings_every_few_batches_tell_when():
    inside, probing = tracker(every=2), SparsityTracker(X, every=2, verbose=0)
    model = net()
    history = fit(model, inside, probing, epochs=2, compiled=EAGER)
    for t, key, seen in (
        (inside, "hoyer", [X[:16], X[16:]] * 2),
        (probing, "val_hoyer", [X] * 4),
    ):
        # Three batches an epoch.
        assert t.history["epoch"] == pytest.approx([2 / 3, 1, 5 / 3, 2])
        expected = [figures(model, x)["hoyer"] for x in seen]
        assert t.history[key] == pytest.approx(expected, rel=1e-5)
        assert history[key] == pytest.approx([figures(model)["hoyer"]] * 2, rel=1e-5)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_positions_are_right_in_a_data_set_of_unknown_length():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    data = data.filter(lambda x, y: True)
    t = tracker(every=2)
    fit(net(), t, x=data, y=None, batch_size=None, epochs=2)
    assert t.history["epoch"] == pytest.approx(
        [e + part for e in (0, 1) for part in (2 / 6, 4 / 6, 1)]
    )


def test_axis_none_is_the_whole_map_of_a_sample():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6, 2)),
            keras.layers.Conv1D(3, 2, activation="relu", name="a"),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    x = np.random.default_rng(0).normal(size=(12, 6, 2)).astype("float32")
    t = tracker(axis=None, metrics="hoyer")
    fit(model, t, x=x, y=np.ones((12, 1)), compiled=EAGER)
    maps = activations(model, "a", x).reshape(12, -1)
    assert t.history["hoyer/a"] == [pytest.approx(hoyer(maps), rel=1e-5)]


def test_where_chooses_the_side():
    model = net()
    sources = {"input": "a", "output": "b"}
    trackers = [
        tracker(layers="b", where=side, metrics={side: "zero_fraction"})
        for side in sources
    ]
    fit(model, *trackers, compiled=EAGER)
    for t, (side, source) in zip(trackers, sources.items(), strict=True):
        expected = pytest.approx(np.mean(activations(model, source) == 0))
        assert t.history[f"{side}/b"] == [expected]


def test_trackers_of_different_layers_and_metrics_share_the_step():
    model = net()
    one = tracker(layers="a", metrics="hoyer")
    other = tracker(layers=["b", "out"], metrics="rms", sample_size=2)
    fit(model, one, other, validation_data=(X[:9], Y[:9]), compiled=EAGER)
    expected = figures(model) | figures(model, X[:9], "val_")
    for key in ("hoyer/a", "val_hoyer/a"):
        assert one.history[key] == [pytest.approx(expected[key], rel=1e-5)]
    for name in ("b", "out"):
        a = activations(model, name, X[[0, 1, 8, 9, 16, 17]])
        rms = np.sqrt(np.square(a).mean())
        assert other.history[f"rms/{name}"] == [pytest.approx(rms, rel=1e-5)]


def test_a_second_fit_starts_anew_and_evaluate_stands_alone():
    model = net()
    t = tracker()
    fit(model, t, epochs=2, compiled=EAGER)
    fit(model, t, x=X[:9], y=Y[:9], epochs=1, compiled=EAGER)
    expected = figures(model, X[:9])
    assert t.history["hoyer"] == [pytest.approx(expected["hoyer"], rel=1e-5)]
    for x in (X, X[:5]):
        model.evaluate(x, x[:, :1], verbose=0, callbacks=[t])
        assert t.evaluated == pytest.approx(figures(model, x, "val_"), rel=1e-5)
    other = net()
    other.layers[0].set_weights([w * -1 for w in other.layers[0].get_weights()])
    other.compile("sgd", "mse", **EAGER)
    for fresh in (t, tracker()):
        other.evaluate(X, Y, verbose=0, callbacks=[fresh])
        assert fresh.evaluated == pytest.approx(figures(other, X, "val_"), rel=1e-5)
    assert len(t.history["hoyer"]) == 1


def test_epochs_without_validation_have_no_figure_of_it():
    t = tracker(metrics="hoyer", layers="a")
    often = {"epochs": 3, "validation_freq": 2, "compiled": EAGER}
    history = fit(net(), t, validation_data=(X, Y), **often)
    value = history["hoyer/a"][0]
    nan = float("nan")
    expected = pytest.approx([nan, value, nan], nan_ok=True, rel=1e-5)
    assert t.history["val_hoyer/a"] == expected
    # As Keras' own keys of validation.
    assert history["val_hoyer/a"] == pytest.approx([value], rel=1e-5)
    assert len(history["val_loss"]) == 1
    assert t.evaluated["val_hoyer/a"] == pytest.approx(value, rel=1e-5)


def test_what_is_seen_of_sparseout_is_its_input():
    keras.utils.set_random_seed(1)
    layers = [
        keras.Input((4,)),
        keras.layers.Dense(8, "relu", name="a"),
        Sparseout(0.5, q=1.0, name="drop", jit_compile=False),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential(layers)
    t = tracker(metrics={"h": metrics.hoyer})
    fit(model, t, compiled=EAGER)
    assert t.history["h/drop"] == [pytest.approx(hoyer(activations(model, "a")), 1e-5)]
