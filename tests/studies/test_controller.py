"""The study of SparsityController: its runs, what it trains, its table."""

import numpy as np
import pytest

from studies import controller
from studies.controller import Settings


def figures(hoyer, zeros=0.5):
    return {"hoyer": hoyer, "zero_fraction": zeros, "accuracy": 0.9, "setting": 1.5}


def ends(low=(0.4, 0.44, 0.42), high=(0.84, 0.9, 0.86)):
    """Figures with q of the CNN held at its ends: sparser at the smaller one."""
    return {
        Settings("cnn", "q", "", end, seed=seed): figures(hoyer, hoyer / 2)
        for end, values in ((0.5, high), (4.0, low))
        for seed, hoyer in enumerate(values)
    }


def test_targets_of_the_cnn_follow_from_what_all_seeds_reach():
    first = controller.runs({})
    assert len(first) == 2 * 2 * 3 * 3 + 2 * 2 * 3
    assert all(run.model == "dense" or not run.metric for run in first)
    done = ends()
    assert controller.reachable(done, "q", "hoyer") == (0.44, 0.84)
    more = controller.runs(done)
    assert more[: len(first)] == first
    assert {(run.metric, run.target) for run in more[len(first) :]} == {
        ("hoyer", 0.54),
        ("hoyer", 0.64),
        ("hoyer", 0.74),
        ("zero_fraction", 0.27),
        ("zero_fraction", 0.32),
        ("zero_fraction", 0.37),
    }
    assert len(more) == len(first) + 6 * 3
    # A seed that is missing may reach less.
    done.popitem()
    assert controller.runs(done) == first


@pytest.mark.parametrize(
    ("actuator", "setting"), [("q", 2.0), ("weight", 0.01)], ids=["q", "weight"]
)
@pytest.mark.parametrize("name", ["dense", "cnn"])
def test_the_layer_to_control_has_one_name(name, actuator, setting):
    model = controller.build(name, actuator, setting)
    part = model.get_layer("hidden").get_layer("regularizer")
    knob = "q" if actuator == "q" else "weight"
    assert float(getattr(part, knob)) == pytest.approx(setting)
    assert part.adjustable


def test_a_run_moves_the_setting(monkeypatch):
    rng = np.random.default_rng(0)
    data = [
        (
            rng.integers(256, size=(n, 28, 28, 1)).astype("uint8"),
            rng.integers(10, size=n),
        )
        for n in (128, 64, 64)
    ]
    monkeypatch.setattr(controller.fashion_cnn, "load_data", lambda name: (data, 10))
    monkeypatch.setitem(controller.EVERY, "dense", 1)
    run = Settings("dense", "weight", "hoyer", 0.65, images=96, epochs=2)
    found = controller.run(run)
    assert set(found) == {"hoyer", "zero_fraction", "accuracy", "setting"}
    assert found["setting"] > 0


def test_the_table_says_how_far_off(tmp_path):
    done = ends() | {
        Settings("dense", "q", "hoyer", 0.65, seed=0): figures(0.66),
        Settings("dense", "q", "hoyer", 0.65, seed=1): figures(0.62),
    }
    text = controller.tables(done)
    assert "### dense, by q\n\nFarthest from its target: 0.0300.\n" in text
    assert "| hoyer | 0.65 | 1 | 0.6200 | -0.0300 | 0.900 | 1.5 |" in text
    assert "With q held at 0.5 and 4 all seeds reach a hoyer of 0.440 to 0.840." in text
    controller.draw(done, tmp_path)
    assert (tmp_path / "controller.png").is_file()
