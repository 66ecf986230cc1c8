"""SparsityTracker: what it measures, where it puts it, and that it changes nothing."""

import csv
import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from tracked import X, Y, fit, small_model

from keras_sparseout import Sparseout, SparsityTracker, SpatialSparseout2D, metrics


def activations(model, layer, x):
    """The input of `layer`, from the graph of a functional model."""
    return keras.Model(model.inputs, layer.input).predict(x, verbose=0)


def test_figures_are_those_of_the_activations_that_the_model_gives(capsys):
    def largest(x):
        return keras.ops.max(x, axis=-1)

    nearly = functools.partial(metrics.zero_fraction, threshold=0.1)
    model = small_model()
    probe = X[:50]
    tracker = SparsityTracker(probe, batch_size=16)
    # A dict gives a metric another name, and arguments.
    others = SparsityTracker(
        probe, metrics={"largest": largest, "nearly": nearly}, layers="first", verbose=0
    )
    history = fit(model, tracker, others).history
    expected = {}
    for name, function in (
        ("hoyer", metrics.hoyer),
        ("zero_fraction", metrics.zero_fraction),
    ):
        of_layers = []
        for layer in ("first", "second"):
            a = activations(model, model.get_layer(layer), probe)
            figures = function(a)
            if figures.ndim > 1:
                figures = np.nanmean(figures, -1)
            expected[f"val_{name}/{layer}"] = np.nanmean(figures)
            of_layers.append(expected[f"val_{name}/{layer}"])
        expected[f"val_{name}"] = np.mean(of_layers)
    for key, value in expected.items():
        assert history[key][-1] == pytest.approx(value, rel=1e-5)
        assert len(history[key]) == 2
        assert tracker.history[key] == history[key]
    assert set(tracker.history) == {"epoch", *expected}
    assert tracker.history["epoch"] == [1, 2]
    a = activations(model, model.get_layer("first"), probe)
    for key, value in (("largest", a.max(-1).mean()), ("nearly", (a <= 0.1).mean())):
        assert history[f"val_{key}"][-1] == pytest.approx(value, rel=1e-5)
    assert capsys.readouterr().out == (
        "SparsityTracker: hoyer, zero_fraction of the inputs of first, second "
        "on 50 samples\n"
    )
    # A second fit starts a new history.
    fit(model, tracker, epochs=3)
    assert len(tracker.history["val_hoyer"]) == 3


def test_silent_samples_do_not_count_in_hoyer():
    model = keras.Sequential(
        [keras.Input((4,)), Sparseout(0.5, name="layer"), keras.layers.Dense(1)]
    )
    x = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], "float32")
    tracker = SparsityTracker(x, verbose=0)
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(x, np.ones((3, 1)), verbose=0, callbacks=[tracker])
    assert tracker.history["val_hoyer"] == [pytest.approx(0.5)]
    assert tracker.history["val_zero_fraction"] == [pytest.approx((0.75 + 1 + 0) / 3)]


def test_layers_without_a_figure_are_nan_and_left_out_of_the_mean():
    silent = keras.layers.Dense(
        8, "relu", kernel_initializer="zeros", bias_initializer="zeros", trainable=False
    )
    inputs = keras.Input((6, 4))
    a = Sparseout(0.5, name="silent")(silent(inputs))
    b = Sparseout(0.5, name="live")(inputs)
    x = keras.layers.Flatten()(keras.layers.Concatenate()([a, b]))
    # Of one unit, it has no Hoyer's sparsity, but zeros.
    outputs = keras.layers.Dense(1, "sigmoid", name="head")(x)
    tracker = SparsityTracker(X, layers=["silent", "live", "head"])
    history = fit(keras.Model(inputs, outputs), tracker).history
    assert math.isnan(history["val_hoyer/silent"][0])
    assert math.isnan(history["val_hoyer/head"][0])
    assert history["val_hoyer"] == history["val_hoyer/live"]
    assert history["val_zero_fraction/silent"] == [1.0, 1.0]
    assert history["val_zero_fraction/head"] == [0.0, 0.0]


@pytest.mark.onednn
def test_nan_activations_show_in_the_mean():
    x = X.copy()
    x[0, 0, 0] = np.nan
    model = small_model()
    model.layers[0].activation = keras.activations.linear  # A ReLU may hide NaN.
    tracker = SparsityTracker(x, verbose=0)
    with pytest.warns(UserWarning, match="' contain NaN, first seen in epoch 1"):
        fit(model, tracker)
    for key in ("val_hoyer/first", "val_hoyer", "val_zero_fraction"):
        assert math.isnan(tracker.history[key][0])


def test_probe_data_may_be_a_dataset_a_dict_or_a_tuple():
    inputs = {"a": keras.Input((6, 4), name="a"), "b": keras.Input((6, 4), name="b")}
    x = Sparseout(0.5, name="layer")(keras.layers.Add()([inputs["a"], inputs["b"]]))
    outputs = keras.layers.Dense(1)(keras.layers.Flatten()(x))
    by_name = keras.Model(inputs, outputs)
    by_place = keras.Model(list(inputs.values()), outputs)
    data = {"a": X, "b": X[::-1]}
    dataset = tf.data.Dataset.from_tensor_slices((data, Y)).batch(32)
    trackers = [
        SparsityTracker(data),
        SparsityTracker(dataset, metrics={"of_dataset": "hoyer"}),
        SparsityTracker(tuple(data.values())),
    ]
    fit(by_name, *trackers[:2], x=data, epochs=1)
    fit(by_place, trackers[2], x=tuple(data.values()), epochs=1)
    figures = [
        tracker.history[f"val_{name}/layer"][0]
        for tracker, name in zip(
            trackers, ("hoyer", "of_dataset", "hoyer"), strict=True
        )
    ]
    # The watched sum of the inputs does not move with the weights.
    assert figures[1] == pytest.approx(figures[0], rel=1e-5)
    assert figures[2] == pytest.approx(figures[0], rel=1e-5)


def test_csv_early_stopping_checkpoint_and_tensorboard_see_the_keys(tmp_path):
    tracker = SparsityTracker(X)
    stopping = keras.callbacks.EarlyStopping(
        "val_hoyer", mode="max", min_delta=10.0, patience=1
    )
    history = fit(
        small_model(),
        tracker,
        keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
        keras.callbacks.ModelCheckpoint(
            str(tmp_path / "{epoch}-{val_hoyer:.3f}.weights.h5"),
            monitor="val_zero_fraction/first",
            mode="max",
        ),
        keras.callbacks.TensorBoard(str(tmp_path / "board")),
        stopping,
        epochs=5,
    ).history
    # The second epoch is no better by 10, so it is the last.
    assert len(history["val_hoyer"]) == 2
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["val_hoyer/second"]) == history["val_hoyer/second"][1]
    assert (tmp_path / f"1-{history['val_hoyer'][0]:.3f}.weights.h5").exists()
    assert {"epoch", *history} == {"loss", *tracker.history}
    [events] = (tmp_path / "board" / "validation").glob("events*")
    logged = {
        value.tag: float(tf.make_ndarray(value.tensor))
        for record in tf.data.TFRecordDataset(str(events))
        for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value
        if value.tag != "keras"
    }
    assert logged["epoch_hoyer/first"] == pytest.approx(history["val_hoyer/first"][1])


def test_many_layers_go_into_the_history_alone_unless_asked_for():
    layers = [Sparseout(0.1, name=f"layer{i}", jit_compile=False) for i in range(9)]
    head = [keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((6, 4)), *layers, *head])
    tracker = SparsityTracker(X)
    all_of_them = SparsityTracker(X, metrics={"each": "hoyer"}, per_layer=True)
    none = SparsityTracker(
        X, metrics={"mean": "hoyer"}, layers=layers[:2], per_layer=False
    )
    history = fit(model, tracker, all_of_them, none, epochs=1).history
    each = {f"val_each/layer{i}" for i in range(9)}
    means = {"val_hoyer", "val_zero_fraction", "val_each", "val_mean"}
    assert set(history) == {"loss", *means, *each}
    assert len(tracker.history) == 1 + 2 * 9 + 2
    assert "val_mean/layer1" in none.history


@pytest.mark.onednn
@pytest.mark.parametrize("eager", [False, True])
def test_a_tracked_run_is_the_untracked_run_bit_for_bit(eager):
    def run(*callbacks):
        keras.utils.set_random_seed(3)
        model = keras.Sequential(
            [
                keras.Input((6, 4), batch_size=35),
                # Draws from its seed even at inference, and keeps its state.
                keras.layers.LSTM(5, dropout=0.2, stateful=True, return_sequences=True),
                keras.layers.BatchNormalization(),
                Sparseout(0.5, q=1.5),
                keras.layers.Flatten(),
                keras.layers.Dense(1),
            ]
        )
        model.compile("sgd", "mse", run_eagerly=eager, jit_compile=False)
        model.fit(
            X,
            Y,
            batch_size=35,
            epochs=1 + eager,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )
        return [tf.convert_to_tensor(v).numpy() for v in model.variables]

    plain = run()
    tracked = run(SparsityTracker(X, batch_size=35))
    assert len(plain) == len(tracked)
    for a, b in zip(plain, tracked, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.onednn
def test_it_works_in_mixed_precision_with_xla():
    model = small_model(dtype="mixed_float16")
    history = fit(model, SparsityTracker(X), epochs=1, jit_compile=True).history
    assert np.isfinite(history["val_hoyer/first"]).all()


def test_it_warns_of_callbacks_that_come_too_early(tmp_path):
    log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    stopping = keras.callbacks.EarlyStopping("loss")
    callbacks = [log, stopping, SparsityTracker()]
    callbacks = keras.callbacks.CallbackList(callbacks, model=small_model())
    with pytest.warns(UserWarning, match="CSVLogger, EarlyStopping will not see"):
        callbacks.on_train_begin()


def test_it_works_behind_a_callback_that_passes_calls_on():
    tracker = SparsityTracker(X)

    class Forwarding(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            tracker.set_model(self.model)
            tracker.on_train_begin(logs)

        def on_epoch_end(self, epoch, logs=None):
            tracker.on_epoch_end(epoch, logs)

    assert "val_hoyer" in fit(small_model(), Forwarding()).history


@pytest.mark.onednn
def test_channels_first_layers_are_measured_over_their_channels():
    x = np.zeros((6, 3, 4, 4), "float32")
    x[:, 1] = 1
    layer = SpatialSparseout2D(0.5, data_format="channels_first", name="layer")
    model = keras.Sequential([layer, keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    tracker = SparsityTracker(x)
    model.fit(x, np.ones((6, 1)), verbose=0, callbacks=[tracker])
    assert tracker.history["val_hoyer"] == [pytest.approx(1.0)]
