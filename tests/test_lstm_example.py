"""The language model example: what it writes, what it prints, and how it fails."""

import csv
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from lm_runs import EXAMPLES, TINY, write_folder

LOADED = """
import sys
import keras, numpy as np
import keras_sparseout

x = np.load(sys.argv[2])
np.save(sys.argv[3], keras.saving.load_model(sys.argv[1] + "/model.keras")(x))
"""
EXPORTED = """
import sys
import numpy as np, tensorflow as tf

x = np.load(sys.argv[2])
model = tf.saved_model.load(sys.argv[1] + "/saved_model")
np.save(sys.argv[3], model.serve(tf.constant(x)))
assert "keras_sparseout" not in sys.modules
"""


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import lstm_lm

    return lstm_lm


def run(example, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["lstm_lm.py", *map(str, arguments)])
    example.main()


def tiny(folder, *arguments):
    """Arguments of a run of seconds."""
    options = [(f"--{name.replace('_', '-')}", value) for name, value in TINY.items()]
    return ["--data", folder, *sum(options, ()), "--min-count", 1, *arguments]


def rows(path):
    with open(path) as file:
        return [
            {name: float(figure) for name, figure in row.items()}
            for row in csv.DictReader(file)
        ]


def in_fresh_process(script, out, tmp_path, x):
    """What `script` makes of `x` and the folder `out`."""
    np.save(tmp_path / "x.npy", x)
    command = [
        sys.executable,
        "-c",
        script,
        out,
        tmp_path / "x.npy",
        tmp_path / "y.npy",
    ]
    subprocess.run(command, cwd=EXAMPLES.parent, check=True)
    return np.load(tmp_path / "y.npy")


def test_a_run_writes_a_complete_folder(example, monkeypatch, tmp_path, capsys):
    out = tmp_path / "out"
    data = write_folder(tmp_path)
    run(example, monkeypatch, *tiny(data, "--out", out, "--q", 1.5))
    printed = capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == sorted(example.NAMES)
    history = rows(out / "history.csv")
    kinds = ("", "val_", "test_")
    for kind in kinds:
        first, last = (row[f"{kind}perplexity"] for row in history)
        assert 10 < last < first < 103
    # Of the loss the penalties are a part, of the perplexity not.
    assert np.exp(history[1]["loss"]) > 1.001 * history[1]["perplexity"]
    for place in ("embedded", "lstm1", "lstm2"):
        assert 0 < history[1][f"hoyer/{place}"] < 1
        assert 0 < history[1][f"val_hoyer/{place}"] < 1
        assert f"\n{place} " in printed
    assert "vocabulary: 102 words" in printed
    assert "Epoch 2/2" in printed
    assert f"perplexity {history[1]['test_perplexity']:.1f}" in printed
    assert (out / "perplexity.png").read_bytes().startswith(b"\x89PNG")
    vocabulary = (out / "vocabulary.txt").read_text().split("\n")
    assert len(vocabulary) == 102
    sample = (out / "sample.txt").read_text()
    assert sample in printed
    assert 100 < len(sample.split()) <= 120
    assert set(sample.split()) < set(vocabulary)

    # The saved model is the one whose perplexity is reported.
    model = keras.saving.load_model(out / "model.keras")
    numbers = example.lm_text.encode(
        example.lm_text.read_folder(data)["test"], vocabulary
    )
    losses = []
    for stream in example.lm_text.batchify(numbers, 8, 10, "test")[:, None]:
        example.reset_states(model)
        losses.append(example.crossentropy(stream[:, 1:], model(stream[:, :-1])))
    found = np.exp(np.mean(losses))
    assert found == pytest.approx(history[1]["test_perplexity"], rel=1e-4)

    # One stream, of words one by one or many at once.
    example.reset_states(model)
    x = np.random.default_rng(0).integers(102, size=(1, 12)).astype("int32")
    expected = np.asarray(model(x))
    example.reset_states(model)
    steps = [np.asarray(model(x[:, t : t + 1])) for t in range(12)]
    np.testing.assert_allclose(np.concatenate(steps, 1), expected, atol=1e-5)
    for script in (LOADED, EXPORTED):
        found = in_fresh_process(script, out, tmp_path, x)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    # The states come into neither file.
    exported = tf.saved_model.load(str(out / "saved_model"))
    first, second = (exported.serve(tf.constant(x)) for _ in range(2))
    np.testing.assert_allclose(first, expected, atol=1e-6)
    assert np.abs(second - first).max() > 1e-4


def test_one_seed_gives_one_run(example, monkeypatch, tmp_path):
    data = write_folder(tmp_path, train=50, others=20)
    # It takes seconds, and draws nothing.
    monkeypatch.setattr(keras.Model, "export", lambda *_, **__: None)
    runs = []
    for seed in (3, 3, 4):
        out = tmp_path / "out"
        options = ("--epochs", 1, "--seed", seed, "--out", out)
        run(example, monkeypatch, *tiny(data, *options))
        names = ("history.csv", "sample.txt")
        runs.append([(out / name).read_text() for name in names])
    assert runs[0] == runs[1]
    assert all(a != b for a, b in zip(runs[0], runs[2], strict=True))


def test_the_preset_awd_is_the_published_one_and_runs(
    example, monkeypatch, tmp_path, capsys
):
    data = write_folder(tmp_path, train=12, others=8)
    # It takes seconds.
    monkeypatch.setattr(keras.Model, "export", lambda *_, **__: None)
    out = tmp_path / "out"
    options = ("--preset", "awd", "--batch", 2, "--window", 20, "--epochs", 1)
    run(example, monkeypatch, "--data", data, "--out", out, *options)
    printed = capsys.readouterr().out
    assert "at q = 2:" in printed
    awd = {name: values[1] for name, values in example.lm_settings.SETTINGS.items()}
    assert (awd["optimizer"], awd["learning_rate"]) == ("sgd", 30)
    assert (awd["weight_decay"], awd["ar"], awd["tar"]) == (1.2e-6, 2, 1)
    assert (awd["batch"], awd["window"], awd["epochs"]) == (20, 70, 500)
    model = keras.saving.load_model(out / "model.keras")
    rates = {layer.name: layer.rate for layer in model.layers if hasattr(layer, "rate")}
    lstms = [layer.layer for layer in model.layers if hasattr(layer, "layer")][1:]
    assert [lstm.units for lstm in lstms] == [1150, 1150, 400]
    assert rates.pop("words") == 0.1
    assert rates.pop("embedded") == 0.4
    assert (rates.pop("lstm1"), rates.pop("lstm2")) == (0.25, 0.25)
    assert rates.pop("lstm3") == 0.4
    assert list(rates.values()) == [0.5] * 3
    penalties = [layer for layer in model.layers if hasattr(layer, "kind")]
    weights = [(layer.kind, layer.weight) for layer in penalties]
    assert weights == [("tar", 1), ("ar", 2)]
    [row] = rows(out / "history.csv")
    assert np.isfinite(list(row.values())).all()


def test_a_broken_run_says_what_is_missing(example, monkeypatch, tmp_path):
    out = tmp_path / "out"
    data = write_folder(tmp_path, train=100)

    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(example, "draw", broken)
    with pytest.raises(KeyboardInterrupt):
        run(example, monkeypatch, *tiny(data, "--epochs", 1, "--out", out))
    note = (out / "INCOMPLETE.txt").read_text()
    assert "half written: perplexity.png, model.keras, saved_model, vocab" in note


@pytest.mark.parametrize("figure", [np.inf, np.nan])
def test_a_run_that_diverges_writes_no_model(example, monkeypatch, tmp_path, figure):
    out = tmp_path / "out"
    data = write_folder(tmp_path, train=100)
    # Which of them it comes to depends on the machine.
    monkeypatch.setattr(example, "train", lambda *_: {"perplexity": [103.0, figure]})
    options = ("--learning-rate", 1e30, "--out", out)
    with pytest.raises(SystemExit) as error:
        run(example, monkeypatch, *tiny(data, *options))
    said = f"is {figure}, so no model is written. Received: --learning-rate 1e+30."
    assert said in str(error.value)
    assert "half written: perplexity.png, model" in (out / "INCOMPLETE.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--q", "-1"], "--q must be finite and at least 0. Received: -1.0."),
        (["--q", "nan"], "--q must be finite and at least 0. Received: nan."),
        (["--recurrent-rate", "1.5"], "--recurrent-rate must be between 0 and 1. Rec"),
        (["--learning-rate", "0"], "--learning-rate must be finite and above 0. Rec"),
        (["--ar", "inf"], "--ar must be finite and at least 0. Received: inf."),
        (["--average", "1"], "--average must be at least 0 and below 1. Received: 1."),
        (["--text-share", "0"], "--text-share must be above 0 and at most 1. Received"),
        (["--epochs", "0"], "--epochs must be at least 1. Received: 0."),
        (["--min-count", "0"], "--min-count must be at least 1. Received: 0."),
        (["--temperature", "0"], "--temperature must be finite and above 0. Received"),
        (["--seed", "-1"], "--seed must be from 0 to 2^32 - 1. Received: -1."),
        (["--optimizer", "lion"], "--optimizer must be adam or sgd. Received: lion."),
        (["--preset", "big"], "argument --preset: invalid choice: 'big'"),
        (["--batch", "x"], "argument --batch: invalid int value: 'x'"),
        (["--data", "x", "--text-share", "1"], "--text-share must be left out with"),
    ],
)
def test_bad_arguments_say_what_to_do(example, monkeypatch, capsys, arguments, says):
    with pytest.raises(SystemExit):
        run(example, monkeypatch, *arguments)
    assert says in capsys.readouterr().err


def test_bad_text_ends_the_run_before_it_writes(example, monkeypatch, tmp_path):
    data, out = write_folder(tmp_path, others=1), tmp_path / "out"
    with pytest.raises(SystemExit) as error:
        run(example, monkeypatch, *tiny(data, "--out", out))
    assert "The valid text must fill one batch of windows" in str(error.value)
    (tmp_path / "test.txt").unlink()
    with pytest.raises(SystemExit) as error:
        run(example, monkeypatch, *tiny(data, "--out", out))
    assert "without test.txt" in str(error.value)
    # As a shell has it whose variable is not set.
    with pytest.raises(SystemExit) as error:
        run(example, monkeypatch, "--data", "", "--out", out)
    assert "--data must be a folder of train.txt" in str(error.value)
    # Rather than in small pieces of the default text.
    with pytest.raises(SystemExit) as error:
        run(example, monkeypatch, "--text-share", 0.0001, "--out", out)
    assert "--text-share" in str(error.value)
    assert not out.exists()


@pytest.mark.parametrize("place", ["", "below"])
def test_a_folder_that_cannot_be_written_ends_the_run(
    example, monkeypatch, tmp_path, place
):
    data = write_folder(tmp_path, train=100)
    out = data / "train.txt" / place
    with pytest.raises(SystemExit) as error:
        run(example, monkeypatch, *tiny(data, "--out", out))
    said = str(error.value)
    assert said.startswith("--out must be a folder that can be written. Received: ")
    assert f"{out}, which fails with " in said


def test_it_starts_as_a_script():
    done = subprocess.run(
        [sys.executable, EXAMPLES / "lstm_lm.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
    )
    assert "drop rate of recurrent weights (0.05, 0.5)" in done.stdout
