"""The study of images: its plan, its runs and its report."""

import dataclasses
import json
import re

import matplotlib.image
import numpy as np
import pytest
import two_classes

from studies import images
from studies.contrasts import contrasts
from studies.parts.images import arms as images_arms
from studies.parts.images import pictures as images_pictures
from studies.parts.images import plan
from studies.parts.images import run as images_run
from studies.parts.images.plan import Settings

FIGURES = ("test_accuracy", "test_loss", "valid_accuracy", "valid_loss", "train_loss")
SPARSITY = ("hoyer", "zeros", "dead", "rms")
NOISE = ("rate", "strength", "strength_at_2")


@pytest.fixture
def small_data(monkeypatch):
    """Whole batches in each place that they are cut: XLA compiles for each shape."""
    parts = ((0, 256), (1, 256), (2, 64))
    data = [two_classes.images(*part, size=16) for part in parts]
    monkeypatch.setattr(images_run.fashion_cnn, "load_data", lambda name: (data, 2))
    return data


def figures(settings):
    """Made-up figures. Seeds differ, q = 3 is better, thresholds are worse."""
    noise = np.random.default_rng(settings.seed).normal(size=2)
    rng = np.random.default_rng([settings.seed, int(100 * settings.q)])
    accuracy = 0.8 + 0.01 * noise[0] + 0.001 * rng.normal()
    accuracy += 0.01 * (settings.q - 2) - 0.05 * settings.setting
    place = dict.fromkeys((*SPARSITY, "needless_macs"), 0.5)
    place |= {"rate": settings.rate, "strength": 0.3, "strength_at_2": 0.2}
    return {
        **dict.fromkeys((*FIGURES, "train_loss_without_noise", "needless"), 0.5),
        **place,
        "test_accuracy": accuracy,
        "valid_accuracy": accuracy - (settings.rate - 0.1) ** 2,
        "epoch": 4,
        "places": {"block1": place, "hidden": place},
    }


def finished(changes=None):
    """All runs, as they are asked for round by round."""
    done, count = {}, -1
    while len(done) > count:
        count = len(done)
        for settings in images.runs(done):
            settings = dataclasses.replace(settings, **(changes or {}))
            done[settings] = figures(settings)
    return done


def test_a_run_has_all_figures_and_q_of_2_is_the_same_in_two_arms(small_data):
    """So the order of images, the first weights and the masks come from the seed."""
    run = images.run(Settings(epochs=2, images=64))
    assert json.loads(json.dumps(run)) == run
    assert all(0 <= run[name] <= 1 for name in ("test_accuracy", *SPARSITY[:3]))
    for name in (*FIGURES, *SPARSITY, *NOISE, "needless", "train_loss_without_noise"):
        assert np.isfinite(run[name]), name
    assert list(run["places"]) == ["block1", "block2", "hidden"]
    for name in (*SPARSITY, *NOISE):
        mean = np.mean([place[name] for place in run["places"].values()])
        assert run[name] == pytest.approx(mean), name
    curve = run["curves"]["valid_accuracy"]
    assert len(curve) == 2
    assert run["valid_accuracy"] == max(curve) == curve[run["epoch"] - 1]

    (x, y), valid, _ = small_data
    settings = Settings(epochs=2, matched=True)
    images_run.keras.utils.set_random_seed(settings.seed)
    built = images_run.build(settings, x[:64], 2)
    images_run.evaluate(built.model, (x[:64], y[:64]))
    matched = images_run.fit(settings, built, (x[:64], y[:64]), valid)
    matched |= images_run.noise_figures(settings, built, x[:64])
    # What else is measured follows from the weights.
    for name in (*FIGURES[2:], "train_loss_without_noise", *NOISE):
        assert matched[name] == pytest.approx(run[name], rel=1e-4), name


def test_the_best_epoch_of_a_wide_residual_network_is_measured(small_data):
    """Its noise is matched, and its statistics are renewed without noise."""
    (x, y), valid, _ = small_data
    options = {"matched": True, "renewed": True}
    settings = Settings("wrn", q=1.5, place="between", epochs=2, **options)
    images_run.keras.utils.set_random_seed(0)
    built = images_run.build(settings, x, 2)
    # It makes the variables of metrics, so that the step of training is traced once.
    images_run.evaluate(built.model, valid)
    run = images_run.fit(settings, built, (x, y), valid)
    assert 0 <= run["valid_accuracy"] == max(run["curves"]["valid_accuracy"])
    accuracy, loss = images_run.evaluate(built.model, valid)
    assert accuracy == pytest.approx(run["valid_accuracy"], abs=1e-6)
    assert loss == pytest.approx(run["valid_loss"], rel=1e-4)

    run = images_run.noise_figures(settings, built, x)
    images_run.sparsity_figures(built, valid[0], run["places"])
    assert list(run["places"]) == [f"group{g}_block1_noise" for g in (1, 2, 3)]
    # Activations behind the second ReLU, while the noise is on signed values.
    assert all(place["zeros"] > 0.05 for place in run["places"].values())
    # Noise is off while statistics are renewed, and on again after it.
    assert all(0 < place["rate"] < 1 for place in run["places"].values())
    norm = built.model.get_layer("group1_block1_norm2")
    assert norm.momentum == 0.9
    values = images_run.keras.Model(built.model.inputs[0], norm.input)
    batches = [np.asarray(values(part)) for part in (x[:128], x[128:])]
    variance = np.mean([batch.var((0, 1, 2)) for batch in batches], 0)
    # Noise would add a third and more; the layers before are normalized by batches.
    assert np.asarray(norm.moving_variance) == pytest.approx(variance, rel=0.2)


def test_a_run_that_diverges_is_an_error(small_data):
    (x, y), *_ = small_data
    built = images_run.build(Settings(), x, 2)
    built.model.weights[-1].assign([np.nan, np.nan])
    # To trace a step would take longer.
    built.model.run_eagerly = True
    with pytest.raises(ValueError, match=r"each epoch must be finite.*\[nan\]"):
        images_run.fit(Settings(epochs=1), built, (x[:64], y[:64]), (x[:64], y[:64]))


def test_the_strength_of_noise_is_its_variance(small_data):
    (x, _), _, _ = small_data
    for settings in (Settings(q=1.5), Settings(method="threshold", setting=0.8)):
        images_run.keras.utils.set_random_seed(0)
        built = images_run.build(settings, x, 2)
        found = images_run.noise_figures(settings, built, x[:100])["places"]
        places = [built.model.get_layer(name) for name in built.noise]
        reader = images_run.keras.Model(
            built.model.inputs[0], [place.input for place in places]
        )
        for place, values in zip(places, reader(x[:100]), strict=True):
            values = np.asarray(values, "float64")
            own = 0.3 / 0.7 * np.mean(np.abs(values) ** settings.q)
            square = 0.3 / 0.7 * np.mean(values**2)
            assert found[place.name] == pytest.approx(
                {"rate": 0.3, "strength": own, "strength_at_2": square}, rel=1e-4
            )


def test_all_arms_begin_with_the_same_weights_and_masks(small_data):
    (x, _), _, _ = small_data

    def first(settings):
        images_run.keras.utils.set_random_seed(settings.seed)
        model = images_run.build(settings, x, 2).model
        # The states of generators, which Keras does not count as weights.
        weights = {id(v) for v in model.weights}
        seeds = [v for v in model.variables if id(v) not in weights]
        assert len(seeds) == 3
        return [np.asarray(v) for v in (*model.trainable_variables, *seeds)]

    plain, *others = map(
        first,
        (
            Settings(),
            Settings(q=3, matched=True),
            Settings(q=3, rate=0.5),
            Settings(method="threshold", setting=0.75),
            Settings(method="hoyer_square", setting=1e-3),
        ),
    )
    for other in others:
        for one, same in zip(plain, other, strict=True):
            np.testing.assert_array_equal(one, same)


def test_lenet_5_is_measured_where_its_noise_acts(small_data):
    (x, _), _, _ = small_data
    built = images_run.build(Settings("lenet5"), x, 2)
    places = images_run.noise_figures(Settings("lenet5"), built, x[:64])["places"]
    images_run.sparsity_figures(built, x, places)
    assert list(places) == [
        "conv1_noise",
        "conv2_noise",
        "dense1_noise",
        "dense2_noise",
    ]
    for name in ("conv1_noise", "conv2_noise"):
        # A pooling behind it leaves fewer zeros for the next layer.
        assert places[name]["needless_macs"] < places[name]["zeros"] - 0.01
    for name in ("dense1_noise", "dense2_noise"):
        assert places[name]["needless_macs"] == pytest.approx(places[name]["zeros"])


def test_what_comes_before_the_noise():
    for method, penalized in (("threshold", False), ("hoyer_square", True)):
        make = images_run.regularizer(Settings(method=method, setting=0.1))
        place = make("block1")
        x = np.array([[3.0, 0.0, -1.0]], "float32")
        assert place(x, training=False).numpy().tolist() == x.tolist()
        # 0.1 (3 + 1)^2 / (9 + 1).
        losses = [pytest.approx(0.16)] if penalized else []
        assert [float(loss) for loss in place.losses] == losses
        assert place.name == "block1"
    for wrong in (Settings(method="l1"), Settings(method="threshold", matched=True)):
        with pytest.raises(ValueError, match=f"Received: method='{wrong.method}'"):
            images_run.regularizer(wrong)
    with pytest.raises(ValueError, match=r"Received: model='vgg'\."):
        images_run.build(Settings("vgg"), np.zeros((2, 16, 16, 1), "uint8"), 2)


def test_the_plan_has_the_fixed_contrast_first_and_its_q_of_2_once():
    listed = images.runs({})
    first = [(s.q, s.matched, s.seed) for s in listed[:20]]
    assert first == [
        pair for seed in range(10) for pair in ((2, False, seed), (3, True, seed))
    ]
    assert len(set(listed)) == len(listed)
    assert sum((s.model, s.method, s.q) == ("cnn", "sparseout", 2) for s in listed) == (
        10 + 3 * 2
    )
    assert {s.seed for s in listed if s.rate != 0.3} == {*plan.SEARCH_SEEDS}
    assert not {*plan.SEARCH_SEEDS} & {*plan.PAIRS}
    assert images.runs({settings: {} for settings in listed[:20]}) == listed


@pytest.mark.parametrize("changes", [{}, {"data": "cifar10", "epochs": 2}])
def test_best_rates_come_from_validation_when_all_searches_are_there(changes):
    base = dataclasses.replace(Settings(), **changes)
    done = {s: figures(s) for s in plan.searches(base)}
    # Rates and q alike: the best of validation is 0.1, however good others are in test.
    for settings, run in done.items():
        run["test_accuracy"] = settings.rate
    assert plan.best_rates(done) == {2.0: 0.1, 3.0: 0.1}
    chosen = [s for s in images.runs(done) if s.rate == 0.1 and s.seed < 100]
    assert len(chosen) == 20
    for settings, run in done.items():
        # Equal accuracies: the lower loss decides.
        run |= {"valid_accuracy": 0.5, "valid_loss": abs(settings.rate - 0.5)}
    assert plan.best_rates(done) == {2.0: 0.5, 3.0: 0.5}
    del done[next(iter(done))]
    assert plan.best_rates(done) is None


def table(report, title):
    return report.split(f"### {title}\n")[1].split("###")[0]


def test_the_report_says_what_is_observed():
    done = finished()
    report = images.tables(done)
    assert report == images.tables(dict(reversed(done.items())))
    fixed = table(report, "The fixed contrast")
    assert "10 pairs. **Observed: higher than q = 2.**" in fixed
    assert "about one standard deviation" in fixed
    rows = table(report, "Test accuracy")
    assert re.search(r"\| matched \| q = 3 \| 10 of 10 .* observed: higher", rows)
    assert re.search(r"\| best \| q = 3, rate 0.1 \| 10 of 10 ", rows)
    assert re.search(r"threshold for 0.85 zeros \| 3 of 3 .* observed: lower", rows)
    assert "| - | - | one seed, no interval |" in table(report, "Other models")
    assert "WRN-10-1, between" in report
    assert "nan" not in report


def test_the_report_copes_with_missing_runs():
    every = finished()
    for count in (1, 2, 5, 21, 60):
        done = dict(list(every.items())[:count])
        report = images.tables(done)
        assert "nan" not in report
        opened = f"open: {count // 2} of 10 pairs." if count < 20 else "observed"
        assert opened in table(report, "The fixed contrast").lower()
    # Another model in the place of the CNN.
    report = images.tables(finished({"model": "wrn", "depth": 28, "epochs": 1}))
    assert "| matched | q = 3 | 10 of 10 " in report
    assert "WRN-28-1, between" in table(report, "Other models")
    assert "LeNet" not in report


def test_no_effect_is_not_observed_and_p_values_are_corrected():
    done = finished()
    for settings, run in done.items():
        sign = 1 if settings.seed % 2 else -1
        run["test_accuracy"] = 0.8 + 0.01 * sign * (settings.q == 3)
    base = images_arms.base_of_contrast(done)
    arms = images_arms.main_arms(done, base)
    fixed, *others = contrasts(done, arms, images_arms.ACCURACY)
    assert fixed.verdict == "not observed at this scale"
    assert fixed.difference.n == 10
    # q = 3 at seeds 0, 1, 2: a p value by itself, and 1 with all others.
    assert all(other.p == 1 for other in others)
    assert "**Not observed at this scale.**" in images.tables(done)


def test_a_comparison_of_the_same_runs_counts_once():
    done = finished()
    for settings, run in done.items():
        run["valid_accuracy"] = -abs(settings.rate - plan.RATE)
    done |= {settings: figures(settings) for settings in plan.best(done)}
    report = images.tables(done)
    same = re.search(r"\| best \| q = 3, rate 0.3 \| 10 of 10 .*", report)[0]
    assert same.endswith("| - | the same runs as in equal |")
    # Four matched but one, four equal, five sparsity, four for each of four WRN arms.
    assert "Of 28 other contrasts with more than one pair" in report


def test_a_curve_of_one_point_is_not_drawn(tmp_path, monkeypatch):
    drawn = []
    draw = images_pictures.plots.frontier

    def frontier(points, **options):
        drawn.extend((point["actuator"], point["setting"]) for point in points)
        return draw(points, **options)

    monkeypatch.setattr(images_pictures.plots, "frontier", frontier)
    # The fixed contrast alone: all arms share its q = 2.
    images.draw(dict(list(finished().items())[:20]), tmp_path)
    assert drawn == [("Sparseout, matched, q", 2.0), ("Sparseout, matched, q", 3.0)]


def test_pictures_are_written(tmp_path):
    # An arm of Sparseout, and its rivals. To place the labels of all takes time.
    few = [s for s in finished() if s.matched or s.method != "sparseout"]
    done = {s: figures(s) for s in (Settings(), *few) if s.seed == 0}
    images.draw(done, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "differences.png",
        "sparsity.png",
    ]
    for path in tmp_path.iterdir():
        assert matplotlib.image.imread(path).std() > 0
    few = dict(list(done.items())[:1])
    images.draw(few, tmp_path)
