"""Where a tracker's figures go: TensorBoard, pandas, pictures."""

import sys

import keras
import matplotlib as mpl
import numpy as np
import pytest
import tensorflow as tf
from stepped import X, Y, figures, fit, net, tracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

mpl.use("Agg")
from matplotlib.figure import Figure

from keras_sparseout import SparsityTracker

# For tests in which the graph does not matter: tracing takes time.
EAGER = {"run_eagerly": True}


def events(folder):
    """All that was written, as dict of lists of (step, array) by tag."""
    values = {}
    for path in (folder / "sparsity").glob("events*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                array = tf.make_ndarray(value.tensor)
                values.setdefault(value.tag, []).append((event.step, array))
    return values


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model, a tracker of it, and the folder for TensorBoard."""
    folder = tmp_path_factory.mktemp("board")
    keras.utils.set_random_seed(0)
    model, t = net(), tracker(log_dir=folder)
    fit(model, t, epochs=2, validation_data=(X[:9], Y[:9]))
    return model, t, folder


HISTOGRAMS = {f"{p}activations/{n}" for p in ("", "val_") for n in ("a", "b")}


def test_tensorboard_gets_figures_and_histograms(run):
    model, t, folder = run
    written = events(folder)
    expected = figures(model) | figures(model, X[:9], "val_")
    for key, value in expected.items():
        # Three batches an epoch.
        assert [step for step, _ in written[key]] == [3, 6]
        np.testing.assert_allclose([v for _, v in written[key]], value, rtol=1e-5)
    for tag, count in (("activations/a", 22 * 8), ("val_activations/b", 9 * 5)):
        assert len(written[tag]) == 2
        for _, buckets in written[tag]:
            assert buckets.shape[1] == 3
            assert buckets[:, 2].sum() == count
            assert (buckets[:, 0] <= buckets[:, 1]).all()
    assert set(t.histograms) == HISTOGRAMS
    assert set(written) == set(expected) | HISTOGRAMS


def test_tensorboard_takes_them_for_scalars_and_histograms(run):
    model, _, folder = run
    board = EventAccumulator(str(folder / "sparsity"))
    board.Reload()
    plugins = {
        tag: board.SummaryMetadata(tag).plugin_data.plugin_name
        for tag in board.Tags()["tensors"]
    }
    scalars = figures(model) | figures(model, X[:9], "val_")
    assert plugins == {
        **dict.fromkeys(scalars, "scalars"),
        **dict.fromkeys(HISTOGRAMS, "histograms"),
    }


def test_the_steps_of_a_resumed_run_follow_on(tmp_path):
    class Stopping(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise RuntimeError("stopped")

    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(RuntimeError, match="stopped"):
        fit(net(), tracker(), backup, Stopping(), epochs=4, compiled=EAGER)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    fit(net(), tracker(log_dir=tmp_path), backup, epochs=4, compiled=EAGER)
    # Three batches an epoch.
    assert [step for step, _ in events(tmp_path)["hoyer"]] == [9, 12]


def test_on_replicas_too(tmp_path):
    to_one = tf.distribute.ReductionToOneDevice()
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], to_one).scope():
        t = tracker(log_dir=tmp_path, layers="a", metrics="zero_fraction")
        fit(net(), t, compiled={"jit_compile": False})
    [(step, buckets)] = events(tmp_path)["activations/a"]
    assert (step, buckets[:, 2].sum()) == (3, 22 * 8)


def test_to_dataframe_is_the_history(run, monkeypatch):
    pytest.importorskip("pandas")
    _, t, _ = run
    frame = t.to_dataframe()
    assert list(frame["epoch"]) == [1, 2]
    assert frame.to_dict("list") == t.history
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"needs pandas.*pip install pandas"):
        t.to_dataframe()


@pytest.mark.parametrize("count", [2, 9])
def test_plot_is_a_heat_map_of_more_than_8_layers(run, tmp_path, count):
    _, t, _ = run
    if count > 8:
        layers = [keras.layers.Dense(3, "tanh", name=f"d{i}") for i in range(count)]
        model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])
        t = tracker(metrics="hoyer")
        fit(model, t, compiled=EAGER)
    figure = t.plot(path=tmp_path / "picture.png")
    assert isinstance(figure, Figure)
    assert (tmp_path / "picture.png").stat().st_size > 1000
    maps = sum(len(axes.images) + len(axes.collections) for axes in figure.axes)
    assert (maps > 0) == (count > 8)


def test_what_is_assigned_before_a_fit_counts(capsys):
    watcher = SparsityTracker()
    watcher.sample_size, watcher.per_layer = 2, False
    history = fit(net(), watcher, compiled=EAGER)
    assert "hoyer" in history
    assert not [key for key in history if "/" in key]
    assert "on 2 samples of each batch" in capsys.readouterr().out
    watcher.verbose = 0
    fit(net(), watcher, compiled=EAGER)
    assert capsys.readouterr().out == ""
