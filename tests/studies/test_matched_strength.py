"""Rates at which the noise of every q is equally strong."""

import keras
import numpy as np
import pytest

from keras_sparseout import Sparseout
from studies.matched_strength import InputMoments, MatchedStrength


def dense_model(*layers):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), *layers])


def samples(n=64, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 4)).astype("float32")


def adjustable(rate, q, **kwargs):
    return Sparseout(rate, q, adjustable=True, jit_compile=False, **kwargs)


def fit(model, callback, epochs=2, **kwargs):
    model.compile("adam", "mse", jit_compile=False)
    x = samples()
    model.fit(x, x[:, :1], epochs=epochs, verbose=0, callbacks=[callback], **kwargs)


@pytest.mark.parametrize("q", [0.5, 1, 1.5, 3])
def test_the_noise_gets_the_strength_of_dropout(q):
    layer = adjustable(0.3, q)
    model = dense_model(keras.layers.Dense(400, "tanh"), layer, keras.layers.Dense(1))
    matched = MatchedStrength(samples(), 0.3)
    matched.set_model(model)
    (entry,) = matched.update().values()

    x = np.asarray(model.layers[0](samples()), "float64")
    assert entry["reference"] == pytest.approx(0.3 / 0.7 * np.mean(x**2), rel=1e-5)
    assert entry["strength"] == pytest.approx(entry["reference"], rel=1e-5)
    # At q = 0.5 epsilon takes off a little near 0.
    odds = layer.rate / (1 - layer.rate)
    assert odds * np.mean(np.abs(x) ** q) == pytest.approx(entry["reference"], rel=1e-4)
    # What the layer really adds: the noise of 25,600 elements, over 40 draws.
    draws = np.tile(x, (40, 1))
    noise = np.asarray(layer(draws, training=True)) - draws
    assert np.mean(np.square(noise)) == pytest.approx(entry["reference"], rel=0.02)


def test_q_of_2_keeps_the_reference_rate_and_so_does_silence():
    dropout, silent = adjustable(0.1, 2), adjustable(0.1, 1)
    zero = keras.layers.Dense(8, kernel_initializer="zeros")
    model = dense_model(keras.layers.Dense(8), dropout, zero, silent)
    names = dropout.name, silent.name
    matched = MatchedStrength(samples(), dict(zip(names, (0.3, 0.6), strict=True)))
    matched.set_model(model)
    entry = matched.update()
    assert (dropout.rate, silent.rate) == (0.3, 0.6)
    assert entry[dropout.name]["strength"] == pytest.approx(
        entry[dropout.name]["reference"], rel=1e-6
    )
    assert entry[silent.name] == {"rate": 0.6, "strength": 0, "reference": 0}


def test_rates_follow_the_activations_at_the_start_of_each_epoch():
    layer = adjustable(0.3, 1, name="noise")
    model = dense_model(keras.layers.Dense(8, "relu"), layer, keras.layers.Dense(1))
    matched = MatchedStrength(samples(), 0.3)
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(layer.rate)
    )
    model.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=False)
    x = samples()
    callbacks = [matched, watch]
    model.fit(x, x[:, :1], batch_size=64, epochs=3, verbose=0, callbacks=callbacks)
    rates = [entry["noise"]["rate"] for entry in matched.history]
    assert seen == rates
    assert len(set(rates)) == 3
    for entry in matched.history:
        assert entry["noise"]["strength"] == pytest.approx(
            entry["noise"]["reference"], rel=1e-5
        )


def test_without_matching_it_only_reads():
    layer = adjustable(0.2, 1, name="noise")
    model = dense_model(layer, keras.layers.Dense(1))
    read = MatchedStrength(samples(), 0.3, match=False)
    fit(model, read, epochs=1)
    assert layer.rate == 0.2
    x = samples().astype("float64")
    (entry,) = read.history
    assert entry["noise"] == pytest.approx(
        {
            "rate": 0.2,
            "strength": 0.25 * np.mean(np.abs(x)),
            "reference": 0.3 / 0.7 * np.mean(x**2),
        },
        rel=1e-5,
    )


def test_reading_changes_no_variable_and_starts_from_the_states():
    keras.utils.set_random_seed(0)
    inputs = keras.Input(batch_shape=(2, None, 4))
    lstm = keras.layers.LSTM(8, return_sequences=True, stateful=True)
    x = keras.layers.BatchNormalization()(adjustable(0.2, 1)(lstm(inputs)))
    model = keras.Model(inputs, adjustable(0.2, 1)(x))
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    model(x, training=False)
    variables = [*model.variables, *lstm.states]
    before = [np.array(variable) for variable in variables]
    assert all(np.abs(state).min() > 0 for state in before[-2:])

    moments = InputMoments(model, x)
    first = moments.read()
    assert moments.read() == first
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    lstm.reset_state()
    assert moments.read() != first


def test_parts_of_the_sample_count_by_their_number():
    model = dense_model(adjustable(0.2, 1.5), keras.layers.Dense(1))
    x = samples(10) * np.arange(10)[:, None]
    (whole,) = InputMoments(model, x).read().values()
    (parts,) = InputMoments(model, x, 4).read().values()
    assert parts == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("reference", [1, -0.1, np.nan, {"noise": 1.0}])
def test_a_reference_out_of_range_is_refused(reference):
    with pytest.raises(ValueError, match=r"rates >= 0 and < 1.*Received: reference="):
        MatchedStrength(samples(), reference)


def test_a_reference_for_other_layers_is_refused():
    matched = MatchedStrength(samples(), {"other": 0.3})
    with pytest.raises(ValueError, match=r"Received: .*'other'.* for layers=\['noise'"):
        matched.set_model(dense_model(adjustable(0.2, 1, name="noise")))


def test_a_model_without_adjustable_layers_is_refused():
    matched = MatchedStrength(samples(), 0.3)
    with pytest.raises(ValueError, match=r"adjustable=True.*\['fixed'\]"):
        matched.set_model(dense_model(Sparseout(0.3, name="fixed")))


def test_inputs_that_are_not_finite_change_no_rate():
    first, second = adjustable(0.2, 1), adjustable(0.2, 1, name="second")
    model = dense_model(first, keras.layers.Dense(2, bias_initializer="ones"), second)
    model.layers[1].bias.assign([np.inf, 0])
    matched = MatchedStrength(samples(), 0.3)
    matched.set_model(model)
    with pytest.raises(ValueError, match=r"must be finite.*'second'"):
        matched.update()
    assert first.rate == 0.2
