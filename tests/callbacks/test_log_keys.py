"""Log keys of trackers, controllers and schedulers: whose figure stands under which."""

import batched
import keras
import numpy as np
import pytest

from keras_sparseout import (
    Sparseout,
    SparseoutScheduler,
    SparsityController,
    SparsityTracker,
    metrics,
)

X = np.random.default_rng(0).normal(size=(24, 6)).astype("float32")
Y = np.abs(X[:, :1])


class Gini(keras.metrics.MeanAbsoluteError):
    """A metric of the model's predictions that happens to have such a name."""


def net(outputs=("out",)):
    inputs = keras.Input((6,))
    x = keras.layers.Dense(8, "relu")(inputs)
    x = Sparseout(0.3, q=1.5, adjustable=True, name="hidden")(x)
    return keras.Model(inputs, {n: keras.layers.Dense(1, name=n)(x) for n in outputs})


def fit(model, *callbacks, epochs=1, **kwargs):
    y = dict.fromkeys(model.output_names, Y)
    options = {"batch_size": 8, "epochs": epochs, "verbose": 0, **kwargs}
    return batched.fit(model, X, y, callbacks=list(callbacks), **options).history


def compiled(model, **metrics):
    # Which keys there are does not depend on the graph, and tracing takes time.
    model.compile("sgd", "mse", run_eagerly=True, **metrics)


class Batches(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.count = 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1


@pytest.mark.parametrize(
    ("name", "probe"),
    [("gini", False), ("largest", True)],
)
def test_names_of_the_models_own_metrics_are_refused_in_the_first_batch(name, probe):
    def largest(x):
        return keras.ops.max(x, axis=-1)

    batches = Batches()
    model = net()
    compiled(model, metrics=[keras.metrics.MeanAbsoluteError(name=name)])
    measured = largest if name == "largest" else name
    tracker = SparsityTracker(X if probe else None, metrics=measured, verbose=0)
    with pytest.raises(ValueError, match="`metrics` must have other names") as error:
        fit(model, batches, tracker, epochs=3)
    assert f"Received: {name} in SparsityTracker and in the model" in str(error.value)
    assert f'metrics={{"activation_{name}": "{name}"}}' in str(error.value)
    assert batches.count == 1
    # The remedy.
    tracker = SparsityTracker(metrics={f"activation_{name}": measured}, verbose=0)
    history = fit(model, tracker, validation_data=(X, {"out": Y}))
    own = [history[key][0] for key in (name, f"val_{name}")]
    ours = [history[key][0] for key in (f"activation_{name}", f"val_activation_{name}")]
    assert not set(own) & set(ours)


def test_names_of_outputs_and_of_the_test_step_are_told_too():
    model = net(("a", "b"))
    compiled(model, metrics={n: [Gini(name="gini")] for n in "ab"})
    history = fit(model, SparsityTracker(metrics="gini", verbose=0))
    assert {"a_gini", "b_gini", "gini"} <= history.keys()
    measured = SparsityTracker(metrics={"a_gini": metrics.gini}, verbose=0)
    with pytest.raises(ValueError, match="Received: a_gini in SparsityTracker"):
        fit(model, measured)

    class OnlyInTests(keras.Model):
        def test_step(self, data):
            return {**super().test_step(data), "hoyer": 0.5}

    model = OnlyInTests(*(lambda m: (m.inputs, m.outputs))(net()))
    compiled(model)
    tracker = SparsityTracker(verbose=0)
    with pytest.raises(ValueError, match="Received: hoyer in SparsityTracker"):
        model.fit(X, Y, verbose=0, validation_data=(X, Y), callbacks=[tracker])


def test_evaluate_returns_the_models_own_figure():
    model = net()
    compiled(model, metrics=[Gini(name="gini")])
    tracker = SparsityTracker(metrics="gini", verbose=0)
    y = {"out": Y}
    own = model.evaluate(X, y, verbose=0, return_dict=True)
    tracked = model.evaluate(X, y, verbose=0, return_dict=True, callbacks=[tracker])
    assert tracked == own
    assert tracker.evaluated["val_gini"] != own["gini"]


@pytest.mark.parametrize("name", ["lr", "learning_rate", "loss", "epoch", "val_hoyer"])
def test_keys_of_keras_are_refused_at_once(name):
    with pytest.raises(ValueError, match=r"have a name each.*Received: "):
        SparsityTracker(metrics={name: "hoyer"})


@pytest.mark.parametrize(
    ("others", "shared"),
    [
        ([SparsityTracker(layers="hidden", metrics="hoyer")], "hoyer, hoyer/hidden"),
        ([SparsityTracker(metrics={"rate": "hoyer"})], "rate/hidden"),
        ([SparsityController(0.6, every=1, actuator="rate")], "rate/hidden"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_callbacks_that_would_write_the_same_keys_are_refused(others, shared, first):
    model = net()
    compiled(model)
    mine = [
        SparsityTracker(verbose=0),
        SparseoutScheduler(rate=lambda step: 0.3, verbose=0),
    ]
    batches = Batches()
    callbacks = [*others, *mine] if first else [*mine, *others]
    with pytest.raises(ValueError, match="must have log keys of their own") as error:
        fit(model, *callbacks, batches)
    assert f"which both write {shared}" in str(error.value)
    assert "other names, for example metrics=" in str(error.value)
    assert batches.count == 0


def test_figures_of_validation_and_of_probe_data_do_not_mix():
    model = net()
    compiled(model)
    seen = SparsityTracker(metrics="hoyer", sample_size=8, verbose=0)
    probe = SparsityTracker(X[:4], metrics=["hoyer", "rms"], verbose=0)
    options = {"epochs": 4, "validation_freq": 2}
    with pytest.warns(UserWarning, match="val_hoyer, val_hoyer/hidden in the logs are"):
        history = fit(model, probe, seen, validation_data=(X, {"out": Y}), **options)
    for key in ("val_hoyer", "val_hoyer/hidden", "val_rms"):
        assert history[key] == probe.history[key]
    assert np.isnan(seen.history["val_hoyer"]).tolist() == [True, False] * 2
    assert len(history["hoyer"]) == 4
    # Without validation there is nothing to tell.
    assert len(fit(model, seen, probe, epochs=2)["val_hoyer"]) == 2


def test_with_other_names_they_stand_side_by_side():
    model = net()
    compiled(model)
    seen = SparsityTracker(metrics="hoyer", sample_size=8, verbose=0)
    probe = SparsityTracker(X[:4], metrics={"probe_hoyer": "hoyer"}, verbose=0)
    history = fit(model, seen, probe, validation_data=(X, {"out": Y}))
    assert history["val_hoyer"] == seen.history["val_hoyer"]
    assert history["val_probe_hoyer"] == probe.history["val_probe_hoyer"]
    assert history["val_hoyer"] != history["val_probe_hoyer"]


# The figures of the validation data stay in the tracker's history.
@pytest.mark.filterwarnings("ignore:val_zero_fraction/hidden in the logs are another")
@pytest.mark.parametrize("first", [True, False])
def test_one_key_has_figures_of_one_kind(first):
    model = net()
    compiled(model)
    tracker = SparsityTracker(metrics="zero_fraction", verbose=0)
    controller = SparsityController(0.6, x=X[:3], every=1, verbose=0)
    callbacks = [tracker, controller] if first else [controller, tracker]
    history = fit(
        model, *callbacks, epochs=4, validation_data=(X, {"out": Y}), validation_freq=2
    )
    key = "val_zero_fraction/hidden"
    probed = [figure for figure in controller.history[key] if figure == figure]
    assert history[key] == probed
    assert len(probed) == 4
    np.testing.assert_allclose([0.6 - e for e in history["error/hidden"]], probed)
    validated = [figure for figure in tracker.history[key] if figure == figure]
    assert len(validated) == 2
    assert not set(validated) & set(probed)
    assert len(history["val_zero_fraction"]) == 2


def test_a_models_metric_with_the_key_of_a_knob_is_refused():
    class Named(keras.Model):
        def train_step(self, data):
            return {**super().train_step(data), self.key: 0.0}

    for callback, key in (
        (SparsityController(0.6, every=1, verbose=0), "error/hidden"),
        (SparseoutScheduler(q=lambda step: 2.0, verbose=0), "q/hidden"),
    ):
        model = Named(*(lambda m: (m.inputs, m.outputs))(net()))
        model.key = key
        compiled(model)
        with pytest.raises(ValueError, match=f"Received: {key} in"):
            model.fit(X, Y, verbose=0, callbacks=[callback])
