"""The language model example: what it writes, what it prints, and how it fails."""

import argparse
import contextlib
import csv
import io
import re
import runpy
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from fresh import random_ops_of_file
from lm_runs import EXAMPLES, TINY, write_folder


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        import lstm_lm

        yield lstm_lm


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


@pytest.fixture(scope="module")
def finished(example, tmp_path_factory):
    """A run's text, what it wrote and printed, and the note in between."""
    data = write_folder(tmp_path_factory.mktemp("text"), train=250)
    out = tmp_path_factory.mktemp("run") / "out"
    printed, notes, draw, write = io.StringIO(), [], example.draw, example.write_text

    def look(history, path):
        notes.append((out / "INCOMPLETE.txt").read_text())
        draw(history, path)

    def write_less(model, vocabulary, length, *others):
        assert length == 120
        return write(model, vocabulary, 20, *others)

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(example, "draw", look)
        patch.setattr(example, "write_text", write_less)
        run(example, patch, *tiny(data, "--out", out, "--q", 1))
    [note] = notes
    return argparse.Namespace(data=data, out=out, printed=printed.getvalue(), note=note)


def test_a_run_writes_a_complete_folder(example, finished):
    out, printed = finished.out, finished.printed
    assert sorted(path.name for path in out.iterdir()) == sorted(example.NAMES)
    history = rows(out / "history.csv")
    for kind in ("", "val_", "test_"):
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
    assert 15 < len(sample.split()) <= 20
    assert set(sample.split()) < set(vocabulary)


def test_the_saved_model_is_the_one_of_which_the_perplexity_is_reported(
    example, finished
):
    model = keras.saving.load_model(finished.out / "model.keras")
    vocabulary = (finished.out / "vocabulary.txt").read_text().split("\n")
    text = example.lm_text.read_folder(finished.data)["test"]
    numbers = example.lm_text.encode(text, vocabulary)
    losses, call = [], tf.function(model)
    for stream in example.lm_text.batchify(numbers, 8, 10, "test")[:, None]:
        example.reset_states(model)
        losses.append(example.crossentropy(stream[:, 1:], call(stream[:, :-1])))
    reported = rows(finished.out / "history.csv")[1]["test_perplexity"]
    assert np.exp(np.mean(losses)) == pytest.approx(reported, rel=1e-4)


def test_file_and_export_read_one_stream_of_words(example, finished):
    model = keras.saving.load_model(finished.out / "model.keras")
    x = np.random.default_rng(0).integers(102, size=(1, 12)).astype("int32")
    expected = np.asarray(model(x))
    # Of words one by one or many at once.
    example.reset_states(model)
    steps = [np.asarray(model(x[:, t : t + 1])) for t in range(12)]
    np.testing.assert_allclose(np.concatenate(steps, 1), expected, atol=1e-5)
    # The states come into neither file.
    exported = tf.saved_model.load(str(finished.out / "saved_model"))
    first, second = (exported.serve(tf.constant(x)) for _ in range(2))
    np.testing.assert_allclose(first, expected, atol=1e-6)
    assert np.abs(second - first).max() > 1e-4


def test_file_and_export_need_nothing_of_the_example(finished):
    """So they load elsewhere, the export without this package."""
    with zipfile.ZipFile(finished.out / "model.keras") as file:
        config = file.read("config.json").decode()
    modules = set(re.findall(r'"module": "(\w+)', config))
    assert modules == {"keras", "keras_sparseout"}
    # It draws nothing, and calls no Python.
    assert random_ops_of_file(finished.out / "saved_model") == []
    graph = (finished.out / "saved_model/saved_model.pb").read_bytes()
    assert b"PyFunc" not in graph


def test_a_sample_follows_its_seed(example, finished):
    model = keras.saving.load_model(finished.out / "model.keras")
    vocabulary = (finished.out / "vocabulary.txt").read_text().split("\n")
    whole = (finished.out / "sample.txt").read_text()
    once, again, other = (
        example.write_text(model, vocabulary, 8, 0.8, seed).split()
        for seed in (1, 1, 2)
    )
    assert once == again != other
    assert whole.split()[: len(once)] == once


def test_a_run_that_is_not_complete_says_what_is_missing(finished):
    missing = "half written: perplexity.png, model.keras, saved_model, vocab"
    assert missing in finished.note
    assert not (finished.out / "INCOMPLETE.txt").exists()


def test_a_seed_decides_weights_noise_and_windows(example, monkeypatch, tmp_path):
    data = write_folder(tmp_path, train=100)
    begun, train = [], example.train

    def note(model, *others):
        weights = np.concatenate([np.ravel(w) for w in model.get_weights()])
        states = [m.seed_generator.state for m in model.layers if seeded(m)]
        noise = [int(state.value[0]) for state in states]
        begun.append([weights, noise])
        train(model, *others)

    def seeded(layer):
        return hasattr(layer, "seed_generator")

    def stop(streams, window, rng=None):
        begun[-1].append(rng.random(4))
        raise KeyboardInterrupt

    monkeypatch.setattr(example, "train", note)
    monkeypatch.setattr(example.lm_text, "windows", stop)
    for seed in (3, 3, 4):
        arguments = tiny(data, "--seed", seed, "--out", tmp_path / "out")
        with pytest.raises(KeyboardInterrupt):
            run(example, monkeypatch, *arguments)
    for first, again, other in zip(*begun, strict=True):
        np.testing.assert_array_equal(first, again)
        assert np.mean(np.asarray(first) != np.asarray(other)) > 0.5


def test_the_preset_awd_is_the_published_one(example, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lstm_lm.py", "--preset", "awd"])
    args = example.lm_settings.parse_arguments("")
    assert args.q == 2
    assert (args.optimizer, args.learning_rate) == ("sgd", 30)
    assert (args.weight_decay, args.ar, args.tar) == (1.2e-6, 2, 1)
    assert (args.batch, args.window, args.epochs) == (20, 70, 500)
    assert (args.layers, args.units, args.embedding) == (3, 1150, 400)
    # LSTMs of that size take a second each to initialize.
    args.units, args.embedding = 6, 4
    model = example.build_model(102, 2, args)
    rates = {layer.name: layer.rate for layer in model.layers if hasattr(layer, "rate")}
    lstms = [layer.layer for layer in model.layers if hasattr(layer, "layer")][1:]
    assert [lstm.units for lstm in lstms] == [6, 6, 4]
    assert rates.pop("words") == 0.1
    assert rates.pop("embedded") == 0.4
    assert (rates.pop("lstm1"), rates.pop("lstm2")) == (0.25, 0.25)
    assert rates.pop("lstm3") == 0.4
    assert list(rates.values()) == [0.5] * 3
    penalties = [layer for layer in model.layers if hasattr(layer, "kind")]
    weights = [(layer.kind, layer.weight) for layer in penalties]
    assert weights == [("tar", 1), ("ar", 2)]


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


def test_it_starts_as_a_script(example, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lstm_lm.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES / "lstm_lm.py"), run_name="__main__")
    assert ended.value.code == 0
    assert "drop rate of recurrent weights (0.05, 0.5)" in capsys.readouterr().out
