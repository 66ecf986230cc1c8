"""The study of how to train with thresholds: what it trains, and its table."""

import sys
from pathlib import Path

import keras
import pytest

from keras_sparseout import TargetSparsity

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "studies"))
    import thresholds

    return thresholds


def targets_by_epoch(study, way, target, epochs):
    parts = study.Scheduled(way, target, epochs)
    parts.make("block1")
    [cutting] = parts.thresholds
    targets = []
    for epoch in range(epochs):
        parts.on_epoch_begin(epoch)
        targets.append(round(cutting.target, 4))
    return targets


def test_targets_move_as_their_names_say(study):
    ways = study.WAYS
    moved = {
        name: targets_by_epoch(study, way, 0.8, 8)
        for name, way in ways.items()
        if way.schedule is not None
    }
    assert moved == {
        "in the last epoch alone": [0] * 7 + [0.8],
        "target raised over the first half": [0.5, 0.575, 0.65, 0.725, *[0.8] * 4],
    }
    assert targets_by_epoch(study, ways["from the start"], 0.8, 3) == [0.8] * 3


def test_each_way_makes_the_layers_that_it_names(study):
    layers = {}
    for name, way in study.WAYS.items():
        place = study.Scheduled(way, 0.8, 8).make("block1")
        assert place.name == "block1"
        layers[name] = place.layers
    kinds = {name: [type(one).__name__ for one in layers[name]] for name in layers}
    assert kinds.pop("after an L1 penalty of 0.01") == [
        "ActivationPenalty",
        "TargetSparsity",
        "Sparseout",
    ]
    assert {tuple(names) for names in kinds.values()} == {
        ("TargetSparsity", "Sparseout")
    }
    configs = {name: layers[name][0].get_config() for name in kinds}
    assert {name for name in kinds if configs[name]["straight_through"]} == {
        "`straight_through=True`"
    }
    assert {name for name in kinds if configs[name]["axis"] == -1} == {"`axis=-1`"}
    rates = {name: layers[name][-1].rate for name in kinds}
    assert rates.pop("no Dropout behind it") == 0
    assert set(rates.values()) == {0.3}


def test_it_prints_a_row_for_each_way(study, monkeypatch, tmp_path, capsys):
    seen = []

    def made_up(data, classes, layer, seed, epochs, callbacks):
        [parts] = callbacks
        assert isinstance(parts, keras.callbacks.Callback)
        layer("block1")
        assert isinstance(parts.thresholds[0], TargetSparsity)
        seen.append((parts.way, parts.target, seed, epochs))
        return dict.fromkeys(study.COLUMNS, 0.25 + 0.5 * seed)

    monkeypatch.setattr(study.fashion_cnn, "load_data", lambda name: (None, 2))
    monkeypatch.setattr(study.cnn_run, "run", made_up)
    arguments = ["--target", "0.7", "--seeds", "2", "--epochs", "3"]
    path = tmp_path / "runs.csv"
    monkeypatch.setattr(sys, "argv", ["thresholds.py", *arguments, "--runs", str(path)])
    study.main()
    assert seen == [
        (way, 0.7, seed, 3) for way in study.WAYS.values() for seed in (0, 1)
    ]
    table = capsys.readouterr().out.split("\n\n")[-1].splitlines()
    assert table[0] == "| | zeros | dead | needless | test accuracy |"
    cells = " | ".join(["0.500 ± 0.250"] * 4)
    assert table[2:] == [f"| {name} | {cells} |" for name in study.WAYS]
    # All of them are in the file.
    study.main()
    assert len(seen) == 2 * len(study.WAYS)


def test_a_bad_target_is_named_before_the_runs(study, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["thresholds.py", "--target", "1"])
    with pytest.raises(SystemExit):
        study.main()
    assert "`target` must be" in capsys.readouterr().err
