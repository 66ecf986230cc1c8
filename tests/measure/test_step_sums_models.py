"""Tracking without data in models, training steps and data of many kinds."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from stepped import X, Y, activations, figures, fit, hoyer, is_clean, net, tracker

from keras_sparseout import SparsityTracker


def test_a_layer_that_is_called_twice_counts_both_and_says_so(capsys):
    shared = keras.layers.Dense(6, "relu", name="shared")
    one, two = keras.Input((4,)), keras.Input((4,))
    outputs = keras.layers.Add()([shared(one), shared(two)])
    model = keras.Model([one, two], keras.layers.Dense(1)(outputs))
    x = [X, -2 * X]
    t = tracker(verbose=1, metrics="hoyer")
    fit(model, t, x=x)
    seen = np.concatenate([np.asarray(shared(part)) for part in x])
    assert t.history["hoyer/shared"] == [pytest.approx(hoyer(seen), rel=1e-5)]
    said = "called in each step shared 2 times, which are measured together"
    assert capsys.readouterr().out.count(said) == 1


@pytest.mark.parametrize("probe", [None, X])
def test_a_layer_that_is_called_with_two_widths_has_no_figures_of_units(probe):
    relu = keras.layers.ReLU(name="relu")
    inputs = keras.Input((4,))
    x = relu(keras.layers.Dense(8)(relu(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    options = {"x": probe, "layers": "relu"}
    with pytest.raises(ValueError, match=r"Received: relu, .* with 4 and 8 units"):
        fit(model, tracker(metrics="firing_rate", **options))
    assert is_clean(model)
    fit(model, t := tracker(metrics="zero_fraction", **options))
    assert 0.3 < t.history[("" if probe is None else "val_") + "zero_fraction"][0] < 0.7


class TakesADict(keras.layers.Layer):
    """Returns a dict too, with other widths."""

    def build(self, shapes):
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        return {"d": x["b"] * self.scale, "c": x["a"]}

    def compute_output_shape(self, shapes):
        return {"d": shapes["b"], "c": shapes["a"]}


@pytest.mark.parametrize("where", ["input", "output"])
def test_of_a_dict_the_first_entry_counts(where):
    inputs = keras.Input((4,))
    wide = keras.layers.Dense(8)(inputs)
    outputs = TakesADict(name="both")({"b": wide, "a": inputs})
    model = keras.Model(inputs, keras.layers.Dense(1)(outputs["d"]))
    t = tracker(layers="both", where=where, metrics=["hoyer", "firing_rate"])
    fit(model, t)
    assert t.history["hoyer/both"] == [pytest.approx(hoyer(X), rel=1e-5)]
    assert t.units["firing_rate/both"].shape == (4,)


class Subclassed(keras.Model):
    """Not built, with layers in another, a list and several outputs."""

    def __init__(self):
        super().__init__()
        self.encoder = keras.Sequential(
            [keras.layers.Dense(8, "relu", name="hidden")], name="encoder"
        )
        self.heads = [keras.layers.Dense(3, "relu", name=f"head{i}") for i in (0, 1)]

    def call(self, x):
        x = self.encoder(x)
        return [head(x) for head in self.heads]


def test_a_model_that_is_not_built_with_several_outputs():
    model = Subclassed()
    t = tracker(metrics=["hoyer", "firing_rate"])
    y = [np.ones((22, 3))] * 2
    fit(model, t, y=y, validation_data=(X, y), compiled={"steps_per_execution": 2})
    hidden = model.encoder(X)
    expected = {"encoder/hidden": hidden}
    expected |= {head.name: head(hidden) for head in model.heads}
    for name, a in expected.items():
        a = np.asarray(a)
        for prefix in ("", "val_"):
            assert t.history[f"{prefix}hoyer/{name}"] == [
                pytest.approx(hoyer(a), rel=1e-5)
            ]
            rates = t.units[f"{prefix}firing_rate/{name}"]
            np.testing.assert_allclose(rates, (a > 0).mean(0), rtol=1e-6)


class Adversarial(keras.Model):
    """Trained by a step of its own that never comes to `call`."""

    def __init__(self):
        super().__init__()
        self.generator = keras.layers.Dense(4, "tanh", name="generator")
        self.critic = keras.Sequential(
            [keras.layers.Dense(6, "relu", name="hidden"), keras.layers.Dense(1)],
            name="critic",
        )

    def train_step(self, x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.critic(x) - self.critic(self.generator(x)))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(
            zip(gradients, self.trainable_variables, strict=True)
        )
        return {"loss": loss}


def test_a_training_step_of_its_own(capsys):
    model = Adversarial()
    model.generator.build((None, 4))
    model.critic.build((None, 4))
    model.built = True
    t = tracker(verbose=1, metrics="zero_fraction")
    fit(model, t, y=None)
    hidden = model.critic.layers[0]
    seen = np.concatenate([hidden(X), hidden(model.generator(X))])
    expected = pytest.approx(np.mean(seen == 0), rel=1e-6)
    assert t.history["zero_fraction/critic/hidden"] == [expected]
    assert "critic/hidden 2 times" in capsys.readouterr().out


def test_a_layer_that_training_alone_calls_has_nan_in_validation():
    class WithHelp(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(8, "relu", name="a")
            self.helping = keras.layers.Dense(6, "relu", name="helping")
            self.out = keras.layers.Dense(1)

        def call(self, x, training=False):
            x = self.hidden(x)
            if training:
                self.add_loss(keras.ops.mean(self.helping(x)))
            return self.out(x)

    model = WithHelp()
    t = tracker(metrics="hoyer")
    fit(model, t, validation_data=(X, Y), compiled={"run_eagerly": True})
    assert np.isfinite(t.history["hoyer/helping"]).all()
    assert np.isnan(t.history["val_hoyer/helping"]).all()
    assert t.history["val_hoyer"] == t.history["val_hoyer/a"]
    # Where there is no training to go by, it is left out, or an error if it is named.
    model.evaluate(X, Y, verbose=0, callbacks=[t := tracker()])
    assert not any("helping" in key for key in t.evaluated)
    with pytest.raises(ValueError, match=r"Received: layers=\['helping'\]"):
        model.evaluate(X, Y, verbose=0, callbacks=[tracker(layers=".*")])


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_sizes_of_the_data_may_be_unknown():
    data = tf.data.Dataset.from_generator(
        lambda: iter([(X, Y)]),
        output_signature=(tf.TensorSpec((None, None)), tf.TensorSpec((None, 1))),
    )
    options = {"x": data, "y": None, "batch_size": None}
    t = tracker(layers="a", where="input", metrics="firing_rate")
    fit(net(), t, **options)
    assert t.history["firing_rate/a"] == [1.0]
    layers = [keras.layers.ReLU(name="relu"), keras.layers.Reshape((4,))]
    model = keras.Sequential([keras.Input((None,)), *layers, keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=r"known number of units. Received: relu with"):
        fit(model, tracker(metrics="firing_rate"), **options)


@pytest.mark.parametrize("kind", ["sparse", "ragged"])
def test_sparse_and_ragged_inputs(kind):
    class Dense(keras.layers.Layer):
        def call(self, x):
            return x.to_tensor(shape=(None, 4)) if kind == "ragged" else x

        def compute_output_shape(self, shape):
            return (shape[0], 4)

    rows = np.maximum(X, 0)
    rows[0] = 1  # That to_tensor pads to all 4.
    inputs = keras.Input((None if kind == "ragged" else 4,), **{kind: True})
    x = keras.layers.Dense(8, "relu", name="a")(Dense()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    given = tf.sparse.from_dense(rows)
    if kind == "ragged":
        given = tf.RaggedTensor.from_tensor(rows)
    t = tracker(layers="a", where="input", metrics="zero_fraction")
    probing = [tracker(x=given, layers="a")] if kind == "ragged" else []
    fit(model, t, *probing, x=given)
    expected = pytest.approx(np.mean(rows == 0), rel=1e-6)
    assert t.history["zero_fraction/a"] == [expected]


def test_a_metric_that_fails_says_of_which_layer():
    model = masked_dense()
    with pytest.raises(ValueError, match=r"`mask` must .* are the activations of a\."):
        fit(model, tracker(layers="a", axis=None), x=np.ones((22, 5)))


def masked_dense():
    inputs = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(7, 4, mask_zero=True)(inputs)
    x = keras.layers.Dense(8, "relu", name="a")(x)
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.LSTM(3)(x)))


def test_a_preprocessing_layer_before_the_watched_one():
    keras.utils.set_random_seed(1)
    scale = keras.layers.Normalization()
    scale.adapt(X)
    layers = [scale, keras.layers.Dense(8, "relu", name="a"), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    fit(model, t := tracker(metrics="hoyer"))
    assert t.history["hoyer/a"] == [pytest.approx(hoyer(activations(model, "a")), 1e-5)]


class Batches(keras.utils.PyDataset):
    def __init__(self, count):
        super().__init__()
        self.count = count

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, index):
        part = slice(8 * (index % 2), 8 * (index % 2) + 8)
        return X[part], Y[part]


@pytest.mark.parametrize("kind", ["sequence", "endless sequence", "endless data set"])
def test_data_sets_in_batches(kind):
    data = Batches(2 if kind == "sequence" else None)
    if kind == "endless data set":
        data = tf.data.Dataset.from_tensor_slices((X[:16], Y[:16])).batch(8).repeat()
    steps = None if kind == "sequence" else 2
    model = net()
    inside, probing = tracker(), tracker(x=data, steps=steps)
    options = {"y": None, "batch_size": None, "steps_per_epoch": steps, "epochs": 2}
    fit(model, inside, probing, x=data, **options)
    for key, value in figures(model, X[:16]).items():
        assert inside.history[key] == pytest.approx([value] * 2, rel=1e-5)
        assert probing.history[f"val_{key}"] == pytest.approx([value] * 2, rel=1e-5)
    if kind != "sequence":
        with pytest.raises(ValueError, match="`x` must have an end, or `steps`"):
            SparsityTracker(data)


@pytest.mark.onednn
def test_a_network_of_keras_applications():
    whole = keras.applications.MobileNet((32, 32, 3), 0.25, weights=None, classes=3)
    # Its first blocks, which are like the others.
    cut = keras.layers.GlobalAveragePooling2D()(
        whole.get_layer("conv_pw_4_relu").output
    )
    model = keras.Model(whole.inputs, keras.layers.Dense(1)(cut))
    for layer in model.layers[:-1]:
        layer.trainable = False  # Without their gradients there is less to trace.
    x = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("float32")
    inside = tracker(sample_size=2, metrics="zero_fraction")
    probing = tracker(x=x, metrics="zero_fraction")
    history = fit(model, inside, probing, x=x, y=np.array([0, 1, 2, 0])[:, None])
    relus = [layer.name for layer in model.layers if "relu" in layer.name]
    assert len(relus) == 9
    for name in relus:
        assert 0 < inside.history[f"zero_fraction/{name}"][0] < 1
        assert 0 <= probing.history[f"val_zero_fraction/{name}"][0] < 1
    # Beyond 8 layers the means alone.
    assert set(history) == {"loss", "zero_fraction", "val_zero_fraction"}
    seen = activations(model, "conv1_relu", x)
    expected = pytest.approx(np.mean(seen == 0), rel=1e-4)
    assert probing.history["val_zero_fraction/conv1_relu"] == [expected]


@pytest.mark.onednn
def test_nan_activations_warn_once_and_training_goes_on():
    x = X.copy()
    x[3] = np.nan
    # A ReLU may hide NaN, so before it.
    t = tracker(layers="a", where="input", metrics="hoyer")
    with pytest.warns(UserWarning, match="'a' contain NaN, first seen in") as seen:
        history = fit(net(), t, x=x, epochs=2)
    assert sum("contain NaN" in str(warning.message) for warning in seen) == 1
    assert len(history["loss"]) == 2
    assert np.isnan(history["hoyer/a"]).all()
    t = tracker(layers="a", where="input", metrics="histogram")
    with pytest.warns(UserWarning, match="'a' contain NaN, first seen in"):
        fit(net(), t, x=x)


def test_it_warns_of_callbacks_before_it_without_data_too():
    stopping = keras.callbacks.EarlyStopping("loss")
    with pytest.warns(UserWarning, match="EarlyStopping will not see the figures of"):
        fit(net(), stopping, tracker(), compiled={"run_eagerly": True})
