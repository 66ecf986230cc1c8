"""Logs of fits that validate now and then: what stops them, and their CSV files."""

import csv

import adjusted
import batched
import keras
import numpy as np
import pytest

from keras_sparseout import SparsityController, SparsityTracker

X = np.random.default_rng(0).normal(size=(24, 6)).astype("float32")
Y = np.abs(X[:, :1])


def net():
    # With a rate of 0 no figure of validation moves, so each uses up patience.
    options = {"optimizer": keras.optimizers.SGD(0.0), "metrics": ["mae"]}
    return adjusted.net(6, run_eagerly=True, **options)


def fit(*callbacks, model=None, validated=2, epochs=8, **kwargs):
    validation = {}
    if validated:
        validation = {"validation_data": (X, Y), "validation_freq": validated}
    options = {"batch_size": 24, "verbose": 0, "epochs": epochs, **kwargs}
    options |= {"callbacks": list(callbacks), **validation}
    return batched.fit(model or net(), X, Y, **options).history


KINDS = {
    "batches": lambda: SparsityTracker(metrics="hoyer", verbose=0),
    "probe": lambda: SparsityTracker(X, metrics="hoyer", verbose=0),
    "controller": lambda: SparsityController(0.5, x=X, every=1, verbose=0),
    "both": lambda: (
        SparsityTracker(metrics="hoyer", verbose=0),
        SparsityController(0.5, x=X, every=1, verbose=0),
    ),
    "none": lambda: (),
}


def kinds(name):
    made = KINDS[name]()
    return made if isinstance(made, tuple) else (made,)


# Keras warns in epochs without validation that "val_loss" is not available.
@pytest.mark.filterwarnings("ignore:.*available|.*conditioned on metric")
def test_a_run_stops_and_slows_down_at_the_epoch_at_which_it_would_without_us(
    tmp_path,
):
    def run(monitor, *trackers):
        slower = keras.callbacks.ReduceLROnPlateau(
            monitor, mode="max", patience=1, min_delta=9.0
        )
        checkpoint = keras.callbacks.ModelCheckpoint(
            str(tmp_path / (monitor + "{epoch}.weights.h5")),
            monitor=monitor,
            mode="max",
            save_best_only=True,
        )
        stopping = keras.callbacks.EarlyStopping(
            monitor, mode="max", patience=2, min_delta=9.0
        )
        callbacks = (*trackers, slower, checkpoint, stopping)
        history = fit(*callbacks, epochs=12, model=net())
        saved = {path.name.removeprefix(monitor) for path in tmp_path.glob("*.h5")}
        for path in tmp_path.glob("*.h5"):
            path.unlink()
        return len(history["loss"]), history["learning_rate"], saved

    expected = run("val_loss")
    assert expected[0] == 6
    assert run("val_loss", *kinds("both")) == expected
    assert run("val_hoyer", *kinds("batches")) == expected


@pytest.mark.parametrize(
    ("kind", "validated"),
    [("none", 2), ("batches", 0), ("batches", 2), ("probe", 0), ("both", 2)],
)
def test_no_column_is_lost(tmp_path, kind, validated):
    class Later(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["later"] = float(epoch)

    class Logger(keras.callbacks.CSVLogger):
        pass

    files = [tmp_path / "one.csv", tmp_path / "two.csv"]
    loggers = [Logger(str(files[0])), keras.callbacks.CSVLogger(str(files[1]), ";")]
    later = keras.callbacks.LambdaCallback()
    history = fit(
        *kinds(kind),
        Later(),
        [loggers[0], later],
        loggers[1],
        validated=validated,
        epochs=4,
    )
    for file, separator in zip(files, ",;", strict=True):
        with open(file) as opened:
            rows = list(csv.DictReader(opened, delimiter=separator))
        assert {"epoch", "later", *history} <= set(rows[0])
        for key, figures in history.items():
            written = [float(row[key]) for row in rows if row[key] != "NA"]
            assert written == figures
        assert [row["val_loss"] for row in rows[:1]] == ["NA"]


@pytest.mark.parametrize("kind", ["batches", "controller"])
def test_a_file_that_is_written_on_keeps_its_columns(tmp_path, kind):
    file = tmp_path / "log.csv"
    made, model = kinds(kind), net()
    first = fit(*made, keras.callbacks.CSVLogger(str(file)), model=model, epochs=1)
    # The second run begins in an epoch with validation.
    second = fit(
        *made,
        keras.callbacks.CSVLogger(str(file), append=True),
        model=model,
        epochs=4,
        initial_epoch=1,
    )
    with open(file) as opened:
        rows = list(csv.DictReader(opened))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert all(None not in row and None not in row.values() for row in rows)
    for key, figures in second.items():
        whole = first.get(key, []) + figures
        assert [float(row[key]) for row in rows if row[key] != "NA"] == whole


def test_loggers_are_as_they_were_also_after_a_fit_that_failed(tmp_path):
    class Failing(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            raise RuntimeError("failed")

    logger = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    with pytest.raises(RuntimeError, match="failed"):
        fit(*kinds("probe"), Failing(), logger)
    assert "on_epoch_end" not in vars(logger)
    history = fit(*kinds("probe"), logger, epochs=2)
    assert "on_epoch_end" not in vars(logger)
    with open(tmp_path / "log.csv") as opened:
        assert {"epoch", *history} <= set(next(csv.DictReader(opened)))
    logger.csv_file.close()


def test_in_a_list_within_the_list(tmp_path):
    logger = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    inner = keras.callbacks.CallbackList([*kinds("probe")], model=(model := net()))
    history = fit(inner, logger, model=model, epochs=2)
    with open(tmp_path / "log.csv") as opened:
        assert {"epoch", *history} <= set(next(csv.DictReader(opened)))
    early = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    outer = keras.callbacks.CallbackList([early, inner], model=model)
    with pytest.warns(UserWarning, match="CSVLogger will not see the figures of"):
        outer.on_train_begin()
