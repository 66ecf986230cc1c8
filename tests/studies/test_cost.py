"""The study of what noise costs: what it runs, and what it makes of the figures."""

import keras
import numpy as np
import pytest

from benchmarks import kept
from keras_sparseout import Bridgeout, Shakeout
from studies import cost
from studies.parts.cost import models as cost_models
from studies.parts.cost import tables as cost_tables

PLACES = {"MLP": 3, "CNN": 3, "LSTM": 3}
MACHINE = {
    "CPU": "a CPU",
    "cores": "2 of 2",
    "tensorflow": "2.21.0",
    "load before the run": "1.5 processes",
}


def time_run(model="CNN", seed=0, methods=("nothing", "Dropout"), **options):
    return cost.Settings("time", model, methods, seed, **options)


def time_figures(*milliseconds, steps=10):
    """Rounds of `nothing` and `Dropout` that take so long a step."""
    rounds = {
        name: [[each * steps / 1e3, 2 * each * steps / 1e3] for each in of_a_method]
        for name, of_a_method in zip(("nothing", "Dropout"), milliseconds, strict=True)
    }
    return {"seconds": rounds, "machine": MACHINE}


def memory_figures(whole, larger):
    return {"whole": whole, "larger": larger, "samples": 1024, "machine": MACHINE}


def row(text, name, heading):
    """The cells of a method in the table below a heading."""
    table = text.split(f"### {heading}")[1].split("###")[0]
    (line,) = [each for each in table.splitlines() if each.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_the_runs_are_repeats_of_each_model_and_each_method():
    runs = cost.runs({})
    assert len(set(runs)) == len(runs)
    times = [run for run in runs if run.figure == "time"]
    assert [(run.model, run.seed) for run in times] == [
        (model, seed) for seed in range(5) for model in PLACES
    ]
    # Ratios need all methods in one process, a peak needs a process for each.
    assert {run.methods for run in times} == {tuple(cost_models.METHODS)}
    memory = [run for run in runs if run.figure == "memory"]
    assert len(memory) == 2 * len(PLACES) * len(cost_models.METHODS)
    assert {len(run.methods) for run in memory} == {1}
    assert len({cost.kind(run) for run in runs}) == 6


@pytest.mark.parametrize("name", PLACES)
def test_noise_stands_in_all_places_of_a_model(name):
    models = {
        method: cost_models.compiled(name, method)
        for method in ("nothing", "Sparseout, q = 3", "Shakeout, c = 0.1")
    }
    kinds = {
        method: [type(layer).__name__ for layer in model.layers]
        for method, model in models.items()
    }
    places = kinds["nothing"].count("Identity")
    assert places == PLACES[name]
    sparseout = "SpatialSparseout1D" if name == "LSTM" else "Sparseout"
    assert kinds["Sparseout, q = 3"] == [
        sparseout if kind == "Identity" else kind for kind in kinds["nothing"]
    ]
    # Around the layers that read what Dropout would act on.
    shakeout = kinds["Shakeout, c = 0.1"]
    assert shakeout.count("Shakeout") == shakeout.count("Identity") == places
    assert shakeout.index("Identity") < shakeout.index("Shakeout")
    assert len({model.count_params() for model in models.values()}) == 1


def test_each_method_is_what_its_name_says():
    sparseouts = {
        q: cost_models.METHODS[f"Sparseout, q = {q:g}"] for q in (1, 1.5, 2, 3)
    }
    for q, method in sparseouts.items():
        for layer in (method.activations("a"), method.locked("a")):
            assert (layer.q, layer.rate, layer.name) == (q, 0.3, "a")
    dense = keras.layers.Dense(2)
    bridgeout = cost_models.METHODS["Bridgeout, q = 1.5"].kernels(dense)
    shakeout = cost_models.METHODS["Shakeout, c = 0.1"].kernels(dense)
    assert isinstance(bridgeout, Bridgeout)
    assert isinstance(shakeout, Shakeout)
    assert (bridgeout.q, bridgeout.rate) == (1.5, 0.3)
    assert (shakeout.c, shakeout.rate) == (0.1, 0.3)


def test_a_run_has_the_figures_that_the_tables_take():
    time, memory = cost.tiny()
    done = {settings: cost.run(settings) for settings in (time, memory)}
    seconds = done[time]["seconds"]
    assert tuple(seconds) == time.methods
    assert {len(each) for each in seconds.values()} == {time.rounds}
    assert done[memory]["samples"] == (cost.LARGER - 1) * memory.batch
    text = cost.tables(done)
    assert "-" not in row(text, "Sparseout, q = 1.5", "Time of a step, MLP")[:6]
    assert row(text, "Shakeout, c = 0.1", "Memory")[0] != "-"


def test_a_peak_is_the_worst_moment_of_what_is_run():
    before = kept.resident()
    # Of 8 bytes each; they are freed before it ends.
    peaks = [kept.peak(lambda n=n: np.ones(n).sum()) - before for n in (2**23, 2**21)]
    assert peaks == pytest.approx([64, 16], abs=10)


def test_added_time_is_compared_with_that_of_dropout():
    methods = ("nothing", "Dropout", "Sparseout, q = 2")
    done = {}
    for seed, faster in enumerate((0, 0.6)):
        figures = time_figures([10, 20, 12], [12, 21, 16])
        others = [[each * 1e-2 - faster * 1e-2, 1] for each in (10.5, 21, 13)]
        figures["seconds"]["Sparseout, q = 2"] = others
        done[time_run(seed=seed, methods=methods)] = figures
    text = cost.tables(done)
    dropout = row(text, "Dropout", "Time of a step, CNN")
    # Fastest of all rounds, median, wall; the median of 2, 1 and 4.
    assert dropout == [
        *("12.00 ± 0.00", "16.00 ± 0.00", "24.00 ± 0.00"),
        *("1.200 ± 0.000", "1.200 ± 0.000", "2.00 ± 0.00", "-", "1.00"),
    ]
    # 1 and 0.4 ms more, which is 0.35 of 2.
    sparseout = row(text, "Sparseout, q = 2", "Time of a step, CNN")
    assert sparseout[-3:] == ["0.70 ± 3.81", "-1.30 ± 3.81", "0.35"]
    assert row(text, "nothing", "Time of a step, CNN")[3:] == ["-"] * 5
    assert row(text, "Shakeout, c = 0.1", "Time of a step, CNN") == ["-"] * 8


def test_nothing_is_compared_with_a_cost_that_may_be_zero():
    done = {
        time_run(seed=0): time_figures([10, 10], [10.1, 10.1]),
        time_run(seed=1): time_figures([10, 10], [9.9, 9.9]),
    }
    assert row(cost.tables(done), "Dropout", "Time of a step, CNN")[-1] == "-"


def test_memory_a_sample_is_what_a_larger_batch_takes_more():
    done = {
        cost.Settings("memory", "LSTM", ("Dropout",), 0): memory_figures(100, 164),
        cost.Settings("memory", "LSTM", ("Dropout",), 1): memory_figures(104, 172),
    }
    cells = row(cost.tables(done), "Dropout", "Memory")
    assert cells == ["-"] * 4 + ["102 ± 2", "66 ± 2"]


def test_the_report_says_on_what_machine_and_is_the_same_each_time():
    done = {
        time_run(): time_figures([1], [2]),
        time_run(threads=2): time_figures([1], [2]),
    }
    text = cost.tables(done)
    assert text == cost.tables(dict(done))
    assert (
        "1 runs: 2 of 2 cores of a CPU, TensorFlow 2.21.0, 1 threads a run. The load "
        "of the machine before a run was 1.5 to 1.5." in text
    )
    assert text.count("threads a run") == 2


@pytest.mark.parametrize("done", [{}, {time_run(): time_figures([1], [2])}])
def test_it_draws_what_there_is(done, tmp_path):
    cost_tables.draw(done, tmp_path)
    assert (tmp_path / "cost.png").stat().st_size > 5000
