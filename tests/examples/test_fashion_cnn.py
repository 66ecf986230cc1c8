"""The example: what it writes, what it prints, and how it fails."""

import argparse
import contextlib
import csv
import io
import re
import runpy
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def fashion():
    """The module of the example, its images and the number of classes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        import fashion_cnn

        yield fashion_cnn, *fashion_cnn.load_data(fashion_cnn.EMBEDDED)


@pytest.fixture(scope="module")
def example(fashion):
    return fashion[0]


def shortened(data):
    """A few of the data, in batches of one shape: XLA compiles for each."""
    sizes = (448, 64, 64)
    return tuple((x[:n], y[:n]) for n, (x, y) in zip(sizes, data, strict=True))


@pytest.fixture
def small_data(example, fashion, monkeypatch):
    _, data, classes = fashion
    data = shortened(data)
    monkeypatch.setattr(example, "load_data", lambda name: (data, classes))
    return data


def run(example, patch, *arguments):
    patch.setattr(sys, "argv", ["fashion_cnn.py", *map(str, arguments)])
    example.main()


@pytest.fixture(scope="module")
def finished(fashion, tmp_path_factory):
    """What a run with all options wrote, and what it printed."""
    example, data, classes = fashion
    out = tmp_path_factory.mktemp("run") / "out"
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(example, "load_data", lambda name: (shortened(data), classes))
        options = ("--epochs", 2, "--compare", "--target-sparsity", 0.7, "--out", out)
        run(example, patch, *options)
    return argparse.Namespace(out=out, printed=printed.getvalue())


def test_the_embedded_images_are_whole(fashion):
    _, ((x, y), (x_valid, y_valid), (x_test, y_test)), classes = fashion
    assert x.shape == (9000, 28, 28, 1)
    assert x_valid.shape == (1000, 28, 28, 1)
    assert x_test.shape == (10000, 28, 28, 1)
    assert {a.dtype.name for a in (x, x_valid, x_test)} == {"uint8"}
    assert classes == 10
    assert np.bincount(y_test).tolist() == [1000] * 10
    assert np.bincount(np.concatenate([y, y_valid])).tolist() == [
        *(942, 1027, 1016, 1019, 974, 989, 1021, 1022, 990, 1000)
    ]


def test_a_run_writes_a_complete_folder(example, small_data, finished):
    out, printed = finished.out, finished.printed
    assert sorted(path.name for path in out.iterdir()) == [
        "control.png",
        "history.csv",
        "history_dropout.csv",
        "model.keras",
        "saved_model",
        "sparsity.png",
    ]
    with open(out / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert {f"val_hoyer/{place}" for place in example.PLACES} < set(rows[0])
    assert "Epoch 2/2" in printed
    for title in ("Sparseout(0.3), q moved", "Dropout(0.3)"):
        table = printed.split(f"{title}: test accuracy 0.")[1].split("\n\n")[0]
        figures, heading, *rows = table.splitlines()
        assert re.fullmatch(r"\d{4}", figures)
        assert heading.split()[3:7] == ["hoyer", "zeros", "dead", "rms"]
        assert [row.split()[0] for row in rows[:3]] == list(example.PLACES)
    assert (out / "sparsity.png").read_bytes().startswith(b"\x89PNG")
    x = small_data[2][0][:8]
    expected = keras.saving.load_model(out / "model.keras").predict(x, verbose=0)
    exported = tf.saved_model.load(str(out / "saved_model"))
    np.testing.assert_allclose(exported.serve(x.astype("float32")), expected, atol=1e-6)


def test_the_table_is_measured_on_the_test_images(example, small_data):
    keras.utils.set_random_seed(0)
    model = example.build_model(
        (28, 28, 1), 10, lambda name: keras.layers.Dropout(0.3, name=name)
    )
    # Half of the units of the last place are dead.
    kernel = model.layers[-3].kernel
    kernel.assign(keras.ops.where(np.arange(128) % 2, kernel, 0.0))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    accuracy, table = example.measure(model, small_data)
    assert 0 <= accuracy <= 0.3
    assert [row["layer"] for row in table.rows] == list(example.PLACES)
    block1, _, hidden = table.rows
    assert hidden["zeros"] > 0.5
    assert 0.5 <= hidden["dead"] <= 0.8
    assert block1["dead"] < 0.5
    x = keras.Model(model.inputs, model.get_layer("hidden").output).predict(
        small_data[2][0], verbose=0
    )
    assert hidden["rms"] == pytest.approx(np.sqrt((x**2).mean()), rel=1e-5)


def test_a_broken_run_says_what_is_missing(
    example, small_data, finished, monkeypatch, tmp_path
):
    # Into a folder of an earlier run with other options.
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)

    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(example, "train", lambda m, d, e, csv, c: csv.write_text("new"))
    monkeypatch.setattr(example, "measure", broken)
    with pytest.raises(KeyboardInterrupt):
        run(example, monkeypatch, "--epochs", 1, "--out", out)
    note = (out / "INCOMPLETE.txt").read_text()
    assert "half written: model.keras, saved_model, sparsity.png. " in note
    # No file of the earlier run is left.
    names = sorted(path.name for path in out.iterdir())
    assert names == ["INCOMPLETE.txt", "history.csv"]
    assert (out / "history.csv").read_text() == "new"


def test_runs_are_named_by_their_regularizers(example, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fashion_cnn.py", "--q", "1", "--compare"])
    args = example.parse_arguments()
    runs = example.make_runs(args)
    assert [run.title for run in runs] == ["Sparseout(0.3, q=1)", "Dropout(0.3)"]
    assert [run.csv for run in runs] == ["history.csv", "history_dropout.csv"]
    ours, theirs = (run.regularizer("block1") for run in runs)
    assert (ours.name, ours.rate, ours.q, ours.adjustable) == ("block1", 0.3, 1, False)
    assert isinstance(theirs, keras.layers.Dropout)
    assert (theirs.name, theirs.rate) == ("block1", 0.3)
    assert example.make_controllers(args, ()) == []


def test_the_picture_shows_all_runs(example, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(example.plots, "sparsity", lambda *a, **k: drawn.append((a, k)))
    history = {key: [0.5, 0.6] for key in ("accuracy", "val_accuracy")}
    for place in example.PLACES:
        history[f"val_hoyer/{place}"] = [0.1, 0.2]
        history[f"val_zero_fraction/{place}"] = [0.3, 0.4]
    example.draw({"q=1": history, "Dropout": history}, tmp_path / "a.png")
    [((curves, panels), options)] = drawn
    assert panels == ("accuracy", "hoyer", "zero_fraction")
    assert options["path"] == tmp_path / "a.png"
    assert len(curves) == 2 * (2 + 2 * 3)
    assert curves["val_accuracy/Dropout"] == [0.5, 0.6]
    assert curves["val_hoyer/hidden, q=1"] == [0.1, 0.2]


@pytest.mark.parametrize("damage", ["absent", "no info", "cut shard"])
def test_damaged_data_say_what_to_do(example, monkeypatch, tmp_path, damage):
    folder = tmp_path / "1.0.0"
    if damage != "absent":
        shutil.copytree(example.DATA, folder)
        shard = next(folder.glob("*test*00001-of-00002"))
    if damage == "no info":
        (folder / "dataset_info.json").unlink()
    elif damage == "cut shard":
        shard.write_bytes(shard.read_bytes()[:100_000])
    monkeypatch.setattr(example, "DATA", folder)
    with pytest.raises(SystemExit) as error:
        example.load_data(example.EMBEDDED)
    assert "Received: fashion_mnist_20k, which fails with" in str(error.value)
    assert f"Restore the folder {folder}" in str(error.value)


@pytest.mark.parametrize("name", ["cifar10", "no_such_set"])
def test_data_that_cannot_be_had_say_what_to_do(example, name):
    with pytest.raises(SystemExit) as error:
        example.load_data(name)
    assert f"Received: {name}, which fails with" in str(error.value)
    assert f't.load("{name}")' in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--q", "-1"], "`q` must be a finite number >= 0. Received: q=-1.0"),
        (["--rate", "1.5"], "Received: rate=1.5"),
        (["--target-sparsity", "1.5"], "a number above 0 and below 1, or a dict"),
        (["--epochs", "0"], "--epochs must be at least 1. Received: 0"),
        (["--out", __file__], "--out must be a folder. Received: "),
        (["--seed", "-1"], "--seed must be from 0 to 2^32 - 1. Received: -1"),
        (["--seed", "x"], "argument --seed: invalid int value: 'x'"),
    ],
)
def test_bad_arguments_say_what_to_do(example, monkeypatch, capsys, arguments, says):
    with pytest.raises(SystemExit):
        run(example, monkeypatch, *arguments)
    assert says in capsys.readouterr().err


def test_it_starts_as_a_script(example, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fashion_cnn.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES / "fashion_cnn.py"), run_name="__main__")
    assert ended.value.code == 0
    assert "--compare" in capsys.readouterr().out


def test_a_target_sparsity_is_asked_for_and_drawn(finished):
    out, printed = finished.out, finished.printed
    assert "zero_fraction of hidden to 0.7, by q in [0.5, 4]" in printed
    # With Sparseout alone: Dropout has no q.
    assert printed.count("asked for 0.7, at q = ") == 1
    assert (out / "control.png").stat().st_size > 10_000
    assert not (out / "INCOMPLETE.txt").exists()
    for name, there in {"history.csv": True, "history_dropout.csv": False}.items():
        with open(out / name) as file:
            assert ("error/hidden" in next(csv.reader(file))) is there
