"""Means and deviations of predictions with noise: those of NumPy, by seed."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl
from uncertain import X, assert_untouched, seeds, sparseout, states

from keras_sparseout import Sparseout
from keras_sparseout.models import mc_predict


def normalized():
    """A model with batch normalization and two noise layers, its statistics not 0."""
    model = keras.Sequential(
        [
            keras.Input((8,)),
            kl.Dense(16, name="a"),
            kl.BatchNormalization(name="bn"),
            Sparseout(0.3, q=1.5),
            kl.ReLU(),
            Sparseout(0.2, q=1.0),
            kl.Dense(2, name="b"),
        ]
    )
    rng = np.random.default_rng(1)
    for v in model.get_layer("bn").variables:
        v.assign(rng.uniform(0.5, 1.5, v.shape))
    return model


def by_numpy(model, x, seed, batch, samples):
    a, bn, b = (model.get_layer(name).get_weights() for name in ("a", "bn", "b"))
    gamma, beta, mean, variance = bn
    h = x @ a[0] + a[1]
    h = gamma * (h - mean) / np.sqrt(variance + model.get_layer("bn").epsilon) + beta
    found = []
    for k in range(samples):
        first, second = seeds(seed, batch, k, 2)
        noisy = np.maximum(sparseout(h, 0.3, 1.5, first), 0)
        found.append(sparseout(noisy, 0.2, 1.0, second) @ b[0] + b[1])
    return np.stack(found)


def test_it_is_the_numpy_reference_and_changes_nothing():
    model, x = normalized(), X[:, 0]
    before = states(model)
    mean, deviation, y = mc_predict(model, x, 9, 5, batch_size=3, return_samples=True)
    batches = [by_numpy(model, x[3 * i : 3 * i + 3], 5, i, 9) for i in range(3)]
    expected = np.concatenate(batches, axis=1)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mean, expected.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(deviation, expected.std(0), rtol=1e-4, atol=1e-5)
    assert mean.dtype == deviation.dtype == np.float32
    assert_untouched(model, before)


def test_the_deviation_is_the_one_that_theory_gives():
    model = keras.Sequential([keras.Input((8,)), Sparseout(0.3, q=1.5), kl.Dense(1)])
    w = model.layers[1].get_weights()[0]
    x, n = X[:, 1], 400
    mean, deviation = mc_predict(model, x, n, 0, verbose=0)
    variance = (np.abs(x) ** 1.5) @ w**2 * 0.3 / 0.7
    assert np.all(np.abs(mean - x @ w) < 5 * np.sqrt(variance / n))
    # Sums of bounded draws have no heavier tails than these.
    assert np.all(np.abs(deviation**2 / variance - 1) < 5 * np.sqrt(3 / n))


def test_samples_depend_on_the_seed_the_sample_and_the_batch_alone():
    noise = Sparseout(0.3, q=1.5, jit_compile=False)
    model = keras.Sequential([keras.Input((8,)), kl.Dense(16), noise, kl.Dense(2)])
    x = np.repeat(X[:1, 0], 6, axis=0)

    def draw(samples, seed, **options):
        options = {"batch_size": 3, "return_samples": True, **options}
        return mc_predict(model, x, samples, seed, **options)[2]

    y = draw(3, 7)
    noise(np.ones((1, 16)), training=True)
    keras.utils.set_random_seed(3)
    np.testing.assert_array_equal(draw(2, 7), y[:2])
    # Rows of one batch, batches, samples and seeds are all apart.
    assert len(np.unique(y[..., 0])) == 18
    assert not np.isin(draw(3, 8), y).any()
    assert not np.array_equal(draw(1, None), draw(1, None))
    data = tf.data.Dataset.from_tensor_slices(x).batch(3)
    mean, _ = mc_predict(model, data, 3, 7, steps=1)
    np.testing.assert_allclose(mean, y[:, :3].mean(0), rtol=1e-5, atol=1e-6)


def test_neighbouring_layers_and_seeds_draw_apart():
    both = keras.Sequential([keras.Input((8,)), kl.Dropout(0.5), kl.Dropout(0.5)])
    ones = np.ones((4, 8), "float32")
    options = {"return_samples": True}
    first = [
        mc_predict(both, ones, 1, seed, layers=[both.layers[0]], **options)[2]
        for seed in (0, 1, -1)
    ]
    second = mc_predict(both, ones, 1, 0, layers=[both.layers[1]], **options)[2]
    masks = {(*y.ravel(),) for y in (*first, second)}
    assert len(masks) == 4
    assert all(set(np.unique(m)) == {0, 2} for m in masks)


def test_outputs_keep_their_structure_and_inputs_come_as_in_predict():
    a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b")
    joined = kl.Dropout(0.5)(kl.Add()([a, b]))
    outputs = {"sum": joined, "rest": [kl.Rescaling(2.0)(a), kl.Flatten()(joined)]}
    model = keras.Model({"a": a, "b": b}, outputs)
    x = {"a": X[:, 0], "b": X[:, 1]}
    mean, deviation, y = mc_predict(model, x, 5, 0, batch_size=3, return_samples=True)
    for found in (mean, deviation, y):
        assert set(found) == {"sum", "rest"}
        assert isinstance(found["rest"], list)
    assert y["sum"].shape == (5, 7, 8)
    np.testing.assert_array_equal(mean["rest"][0], 2 * x["a"])
    np.testing.assert_array_equal(deviation["rest"][0], 0)
    np.testing.assert_allclose(deviation["sum"], y["sum"].std(0), rtol=1e-5)
    np.testing.assert_array_equal(mean["sum"], mean["rest"][1])

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            part = slice(3 * i, 3 * i + 3)
            return {name: array[part] for name, array in x.items()}, np.zeros(3)[:1]

    data = tf.data.Dataset.from_tensor_slices(x).batch(3)
    for same in (Batches(), data):
        again, _ = mc_predict(model, same, 5, 0)
        np.testing.assert_array_equal(again["sum"], mean["sum"])


class Counting(kl.Layer):
    """Counts its traces."""

    traces = 0

    def call(self, x):
        self.traces += 1
        return x


def test_one_graph_serves_all_samples_and_batch_sizes():
    model = keras.Sequential([keras.Input((8,)), Counting(), kl.Dropout(0.5)])
    model.predict(X[:, 0], verbose=0)
    function, before = model.predict_function, model.layers[0].traces
    mc_predict(model, X[:, 0], 4, 0, batch_size=3)
    # One of a training step, and one that runs.
    assert model.layers[0].traces == before + 2
    assert model.predict_function is function
    np.testing.assert_array_equal(model.predict(X[:, 0], verbose=0), X[:, 0])


def test_lengths_may_differ_only_where_outputs_do_not():
    model = keras.Sequential([keras.Input((None, 8)), kl.Dropout(0.5)])
    data = tf.data.Dataset.from_generator(
        lambda: (np.ones((2, n, 8), "float32") for n in (3, 5, 4)),
        output_signature=tf.TensorSpec((None, None, 8)),
    )
    with pytest.raises(ValueError, match=r"batches for which .* have one shape"):
        mc_predict(model, data, 2, 0)
    pooled = keras.Sequential([*model.layers, kl.GlobalAveragePooling1D()])
    mean, _ = mc_predict(pooled, data, 2, 0)
    assert mean.shape == (6, 8)


def test_a_model_that_must_know_its_batch_size():
    class Halves(kl.Layer):
        def call(self, x):
            return keras.ops.reshape(x, (x.shape[0] * 2, 4))

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.halves, self.drop = Halves(), kl.Dropout(0.5)

        def call(self, x):
            return self.drop(self.halves(x))

    model = Own()
    model(X[:3, 0])
    mean, deviation = mc_predict(model, X[:, 0], 6, 0, batch_size=3)
    assert mean.shape == (14, 4)
    assert (deviation > 0).any()


@pytest.mark.filterwarnings("error:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("dtype", "kept"),
    [("float16", "float32"), ("bfloat16", "float32"), ("float64", "float64")],
)
def test_types_of_outputs(dtype, kept):
    model = keras.Sequential([keras.Input((8,)), kl.Dropout(0.5, dtype=dtype)])
    mean, deviation, y = mc_predict(model, X[:, 0], 5, 0, return_samples=True)
    assert mean.dtype == deviation.dtype == kept
    assert str(y.dtype) == dtype
    np.testing.assert_allclose(mean, y.astype("float64").mean(0), rtol=1e-6)
    np.testing.assert_allclose(deviation, y.astype("float64").std(0), rtol=1e-6)


def test_a_small_spread_far_from_0_and_infinities():
    x = inputs = keras.Input((8,))
    x = kl.Rescaling(1.0, offset=1e6)(kl.GaussianNoise(0.5)(x))
    infinite = kl.Rescaling(-np.inf, offset=-1.0)(kl.Dropout(0.5)(inputs * 0 + 1))
    model = keras.Model(inputs, [x, kl.Rescaling(0.0, offset=-np.inf)(x), infinite])
    mean, deviation, y = mc_predict(model, X[:, 0], 50, 0, return_samples=True)
    expected = y[0].astype("float64")
    np.testing.assert_allclose(mean[0], expected.mean(0), rtol=1e-7)
    np.testing.assert_allclose(deviation[0], expected.std(0), rtol=1e-6)
    assert np.all(mean[1] == -np.inf)
    assert np.all(deviation[1] == 0)
    assert np.all(np.isnan(deviation[2]))


def test_one_sample_has_no_deviation():
    model = keras.Sequential([keras.Input((8,)), kl.Dropout(0.5)])
    mean, deviation = mc_predict(model, X[:, 0], 1, 0)
    assert not np.array_equal(mean, X[:, 0])
    np.testing.assert_array_equal(deviation, 0)


def test_a_bar_shows_only_for_many_passes(capsys, monkeypatch):
    monkeypatch.setitem(mc_predict.__globals__, "_PASSES_WITHOUT_BAR", 20)
    model = keras.Sequential([keras.Input((8,)), kl.Dropout(0.5)])
    mc_predict(model, X[:2, 0], 10, 0, batch_size=1)
    mc_predict(model, X[:2, 0], 11, 0, batch_size=1, verbose=0)
    assert capsys.readouterr().out == ""
    mc_predict(model, X[:2, 0], 11, 0, batch_size=1)
    assert "22/" in capsys.readouterr().out


@pytest.mark.parametrize("layer", [kl.Dropout(0.0), Sparseout(0.0, adjustable=True)])
def test_a_rate_of_0_has_no_deviation(layer):
    model = keras.Sequential([keras.Input((8,)), layer])
    mean, deviation = mc_predict(model, X[:, 0], 3, 0)
    np.testing.assert_array_equal(mean, X[:, 0])
    np.testing.assert_array_equal(deviation, 0)
