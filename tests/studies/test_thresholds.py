"""The study of how to train with thresholds: what it trains, its table, picture."""

from studies import thresholds
from studies.parts import cnn_run
from studies.thresholds import Settings


def targets_by_epoch(way, target, epochs):
    parts = thresholds.Scheduled(way, target, epochs)
    parts.make("block1")
    [cutting] = parts.thresholds
    targets = []
    for epoch in range(epochs):
        parts.on_epoch_begin(epoch)
        targets.append(round(cutting.target, 4))
    return targets


def test_targets_move_as_their_names_say():
    ways = thresholds.WAYS
    moved = {
        name: targets_by_epoch(way, 0.8, 8)
        for name, way in ways.items()
        if way.schedule is not None
    }
    assert moved == {
        "in the last epoch alone": [0] * 7 + [0.8],
        "target raised over the first half": [0.5, 0.575, 0.65, 0.725, *[0.8] * 4],
    }
    assert targets_by_epoch(ways["from the start"], 0.8, 3) == [0.8] * 3


def test_each_way_makes_the_layers_that_it_names():
    layers = {}
    for name, way in thresholds.WAYS.items():
        place = thresholds.Scheduled(way, 0.8, 8).make("block1")
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


def test_a_run_trains_in_the_way_that_it_names(monkeypatch):
    seen = []

    def made_up(layer, seed, epochs, images, callbacks):
        [parts] = callbacks
        layer("block1")
        [cutting] = parts.thresholds
        seen.append((parts.way, cutting.target, seed, epochs, images))
        return {"accuracy": 0.9}

    monkeypatch.setattr(cnn_run, "run", made_up)
    settings = Settings("no Dropout behind it", 0.7, images=50, epochs=3, seed=4)
    assert thresholds.run(settings) == {"accuracy": 0.9}
    assert seen == [(thresholds.WAYS[settings.way], 0.7, 4, 3, 50)]


def test_the_table_and_the_picture_have_each_way(tmp_path):
    runs = thresholds.runs({})
    assert len(runs) == 3 * len(thresholds.WAYS)
    names = {*cnn_run.HEADINGS.values()}
    done = {run: dict.fromkeys(names, 0.5 + 0.01 * run.seed) for run in runs}
    table = thresholds.tables(done).splitlines()
    assert table[0] == "Share of zeros asked for: 0.8."
    assert table[2] == "|  | seeds | zeros | dead | needless | test accuracy |"
    # Of three values that differ by 0.01 the half interval is 0.0248.
    cells = " | ".join(["0.510 ± 0.025"] * 4)
    assert table[4:] == [f"| {way} | 3 | {cells} |" for way in thresholds.WAYS]
    thresholds.draw(done, tmp_path)
    assert (tmp_path / "thresholds.png").is_file()
