"""The study of the language model: its runs, one of them, its report."""

from dataclasses import replace

import keras
import lm_runs
import matplotlib.image
import numpy as np
import pytest

from keras_sparseout import Sparseout
from studies import language
from studies.language import Settings
from studies.parts.language import run as language_run


def fake(settings):
    """Figures of a run. In the arm matched q = 1.5 is better, by more than chance."""
    rng = np.random.default_rng([settings.seed, int(8 * settings.q), settings.matched])
    nats = 4.1 + 0.01 * settings.seed + 0.002 * rng.normal()
    nats -= 0.01 * (settings.q == 1.5 and settings.matched)
    nats += 0.2 * settings.target + abs(settings.scale - 1) * 0.05
    place = {"rate": 0.25, "strength": 0.02, "reference": 0.01}
    place |= {"hoyer": 0.3, "rms": 0.2, "zeros": 0, "dead": 0}
    return {
        "test_nats": nats,
        "test_perplexity": np.exp(nats),
        "valid_nats": nats,
        "train_nats": nats,
        "epoch": 2,
        "epochs": 4,
        "stopped": settings.seed > 0,
        "valid_curve": [nats + 1, nats, nats, nats],
        "places": {"embedded": place},
    }


def faked(keep=lambda settings: True):
    """The figures of a whole study, or of the runs that `keep` is true for."""
    done = {}
    while missing := [s for s in language.runs(done) if s not in done]:
        done |= {settings: fake(settings) for settings in missing}
    return {settings: done[settings] for settings in done if keep(settings)}


def lines(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_the_fixed_contrast_comes_first_with_ten_pairs():
    listed = language.runs({})
    assert len(listed) == len({*listed}) == 10 + 10 + 10 + 12 + 15 + 12
    for seed, (own, dropout) in enumerate(zip(*[iter(listed[:20])] * 2, strict=True)):
        assert own == Settings(q=1.5, matched=True, seed=seed)
        assert dropout == Settings(seed=seed)


def test_each_q_gets_its_best_rate_with_equal_budgets():
    def few_rates(settings):
        figures = fake(settings)
        # Seeds of the report must not decide.
        best = {1.5: 0.5, 2: 2.0}[settings.q] if settings.seed >= 10 else 1.0
        return {**figures, "valid_nats": abs(settings.scale - best)}

    listed = language.runs({})
    tuning = [settings for settings in listed if settings.seed >= 10]
    for q in (1.5, 2):
        tried = [(s.scale, s.seed) for s in tuning if s.q == q]
        assert tried == [(x, seed) for x in (0.5, 1, 2) for seed in (10, 11)]
    done = {settings: few_rates(settings) for settings in tuning[1:]}
    assert len(language.runs(done)) == len(listed)
    done[tuning[0]] = few_rates(tuning[0])
    added = language.runs(done)[len(listed) :]
    assert {*added} == {
        Settings(q=q, matched=q != 2, scale=scale, seed=seed)
        for q, scale in ((1.5, 0.5), (2, 2.0))
        for seed in range(10)
    }


def test_runs_of_two_models_in_one_folder_are_refused():
    done = faked()
    settings = next(iter(done))
    done[replace(settings, units=8)] = fake(settings)
    with pytest.raises(
        ValueError, match=r"one text and one model\. Received: .*units=8"
    ):
        language.runs(done)


def test_the_report_decides_by_p():
    text = language.tables(faked())
    fixed = lines(text, "q = 1.5 against q = 2")[0]
    assert fixed.endswith("10 pairs. **Observed: better than q = 2.**")
    rows = lines(text, "| equal | q = 1.5")[0].split(" | ")
    assert rows[2] == "10 of 10"
    assert rows[-1] == "not observed at this scale |"
    rival = lines(text, "| sparsity | threshold, 75 % zeros")[0]
    assert rival.endswith("| observed: worse than Dropout |")
    # At scale 1, which is the best one here, these are the same runs.
    assert (
        "| the same runs as in matched |"
        in lines(text, "| best | q = 1.5, rate x 1")[0]
    )
    assert lines(text, "| 1.5 | ")[0].endswith(" | 1 |")
    # One of ten used up its epochs.
    assert lines(text, "| matched | q = 1.5 |")[1].endswith(" | 9 of 10 |")
    assert lines(text, "| matched | q = 1.5 | embedded")[0].split(" | ")[5] == "2.00"


def test_another_model_chooses_its_own_rate_and_has_the_same_report():
    listed = language.runs({})
    tuned = {
        replace(settings, units=8): {"valid_nats": settings.scale}
        for settings in listed
        if settings.seed >= 10
    }
    added = language.runs(tuned)[len(listed) :]
    assert {settings.scale for settings in added} == {0.5}
    done = {replace(settings, units=8): fake(settings) for settings in faked()}
    assert language.tables(done) == language.tables(faked())


def test_the_report_tells_what_is_missing(tmp_path):
    done = faked(lambda settings: settings.seed < 3 and settings.q in (1.5, 2))
    text = language.tables(done)
    assert "**Open: 3 of 10 pairs.**" in text
    assert "| 3 of 10 |" in lines(text, "| matched | q = 1.5")[0]
    missing = (
        "| matched | q = 3 | 0 of 3 | - | - | - | - | - | - | open: 0 of 3 pairs |"
    )
    assert missing in text
    assert not lines(text, "| best ")
    assert lines(text, "| 1.5 | ") == ["| 1.5 | - | - | - | - |"]
    language.draw(done, tmp_path)
    for name in ("differences.png", "validation.png"):
        assert matplotlib.image.imread(tmp_path / name).std() > 0


def test_tables_of_one_run_or_of_tiny_ones():
    for settings in (*language.tiny(), Settings(q=3, matched=True)):
        assert "### The fixed contrast" in language.tables({settings: fake(settings)})


def test_tables_of_a_run_whose_units_are_silent():
    run = fake(Settings())
    run["places"]["embedded"]["hoyer"] = None
    report = language.tables({Settings(): run})
    (place, *_) = lines(report, "| matched | q = 2 | embedded |")
    assert place.split(" | ")[-4:] == ["-", "0.200", "0.000", "0.000 |"]


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    return str(lm_runs.write_folder(tmp_path_factory.mktemp("text"), 100, 40))


def small(folder, **changes):
    base = replace(language.tiny()[0], data=folder, share=1.0, jit_compile=False)
    return replace(base, **changes)


def test_a_run_of_a_text_by_path(text_folder):
    """It ends when validation rises, and measures what the best epoch left."""
    settings = small(
        text_folder, q=1.5, matched=True, target=0.5, penalty=0.01, units=24
    )
    settings = replace(settings, learning_rate=0.1, patience=1, epochs=20)
    figures = language.run(settings)
    assert figures["stopped"]
    epoch = figures["epoch"]
    assert figures["epochs"] == epoch + 1 < 20
    assert len(figures["valid_curve"]) == len(figures["train_curve"]) == epoch + 1
    best = min(figures["valid_curve"])
    assert figures["valid_curve"][epoch - 1] == best
    assert figures["valid_nats"] == pytest.approx(best, abs=1e-3)
    assert figures["test_perplexity"] == pytest.approx(np.exp(figures["test_nats"]))
    assert {*figures["places"]} == {"embedded", "lstm1", "lstm2"}
    for place, found in figures["places"].items():
        rates = figures["rate_curves"][place]
        assert len(rates) == epoch + 1
        assert found["rate"] == pytest.approx(rates[epoch - 1], abs=1e-5)
        assert rates[epoch] != rates[epoch - 1]
        assert 0 < found["rate"] < 1
        assert found["zeros"] > 0.2 or place == "embedded"


def test_the_noise_of_dropout_is_what_others_are_matched_to(text_folder):
    settings = small(text_folder)
    text = language_run.read_text(settings)
    model = language_run.build_model(text.words, settings)
    for found in language_run.measure(model, text, settings).values():
        assert found["rate"] == 0.25
        assert found["strength"] == pytest.approx(found["reference"], rel=1e-5)


def test_all_arms_begin_with_the_same_weights_and_masks():
    def first(settings):
        keras.utils.set_random_seed(settings.seed)
        model = language_run.build_model(50, settings)
        noise = [layer for layer in model.layers if isinstance(layer, Sparseout)]
        assert [layer.noise_shape for layer in noise] == [(None, 1, None)] * 3
        assert {layer.q for layer in noise} == {settings.q}
        seeds = [layer.seed_generator.state for layer in noise]
        return [np.asarray(v) for v in (*model.trainable_variables, *seeds)]

    plain, matched, rival = map(first, language.tiny())
    for weights in (matched, rival):
        for one, other in zip(plain, weights, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("nats", [[5.0, 4.0, np.nan], [4.7, 4.61]])
def test_a_run_that_diverges_is_an_error(nats):
    language_run.check_converged({"nats": [4.0], "val_nats": [4.7, 4.60]}, 100)
    with pytest.raises(ValueError, match=r"below the 4\.61 nats of guessing.*\[\d"):
        language_run.check_converged({"nats": [4.0], "val_nats": nats}, 100)
