"""The picture of sparsity by epoch: what is drawn, and that it can be read."""

import keras
import matplotlib
import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from pictures import (
    FEW,
    MANY,
    assert_readable,
    colours,
    figures,
    line,
    readings,
    words,
)

from keras_sparseout import SparsityTracker, plots


def test_each_layer_is_a_line_solid_in_training_dashed_on_other_data():
    history = figures(FEW)
    upper, panel = plots.sparsity(history).axes
    for kind, style in (("", "-"), ("val_", "--")):
        assert line(upper, f"{kind}accuracy").get_linestyle() == style
        for layer in (*[f"/{name}" for name in FEW], ""):
            drawn = line(panel, f"{kind}hoyer{layer}")
            assert drawn.get_linestyle() == style
            np.testing.assert_array_equal(drawn.get_xdata(), [1, 2, 3, 4, 5, 6])
            np.testing.assert_array_equal(
                drawn.get_ydata(), history[f"{kind}hoyer{layer}"]
            )
    assert len(panel.get_lines()) == 8
    assert upper.get_ylabel() == "accuracy"
    assert panel.get_ylabel() == "Hoyer sparsity\n(0 dense, 1 sparse)"
    assert panel.get_xlabel() == "epoch"


@pytest.mark.parametrize("layers", [FEW, MANY[:8]])
def test_layers_differ_by_colour_and_by_marker(layers):
    (panel,) = plots.sparsity(figures(layers), accuracy=None).axes
    drawn = [line(panel, f"val_hoyer/{layer}") for layer in layers]
    seen = [line(panel, f"hoyer/{layer}") for layer in layers]
    assert colours(drawn) == colours(seen)
    assert len(set(colours(drawn))) == len(layers)
    assert len({line.get_marker() for line in drawn}) == len(layers)
    names = [text.get_text() for text in panel.get_legend().get_texts()]
    assert names == [*layers, "training", "validation or probe", "mean over layers"]
    handles = panel.get_legend().get_lines()[: len(layers)]
    assert colours(handles) == colours(drawn)
    assert [h.get_marker() for h in handles] == [line.get_marker() for line in drawn]


@pytest.mark.parametrize("count", [2, 8, 20])
def test_colours_go_by_depth_and_none_is_too_light(count):
    panel = plots.sparsity(figures(MANY[:count]), accuracy=None).axes[0]
    rgb = np.array(
        [
            matplotlib.colors.to_rgb(line(panel, f"hoyer/{layer}").get_color())
            for layer in MANY[:count]
        ]
    )
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    # The order can be seen in grey too; 2 is the contrast with white paper.
    assert (np.diff(luminance) > 0).all()
    assert 1.05 / (luminance.max() + 0.05) > 2


def test_more_than_8_layers_have_a_colour_bar():
    layers = MANY[:20]
    figure = plots.sparsity(figures(layers))
    upper, panel, bar = figure.axes
    names = [label.get_text() for label in bar.get_yticklabels()]
    assert names[0] == layers[0]
    assert names[-1] == layers[-1]
    assert set(names) < set(layers)
    assert bar.get_ylim()[0] > bar.get_ylim()[1]
    legend = [text.get_text() for text in panel.get_legend().get_texts()]
    assert legend == ["training", "validation or probe", "mean over layers"]
    # Each tick is in the middle of the colour of its layer.
    (colour_map,) = [c for c in bar.collections if isinstance(c, QuadMesh)]
    assert sorted(bar.get_ylim()) == [-0.5, 19.5]
    for place, name in zip(bar.get_yticks(), names, strict=True):
        assert place == layers.index(name)
        expected = line(panel, f"hoyer/{name}").get_color()
        np.testing.assert_allclose(colour_map.to_rgba(place), expected)
    assert_readable(figure)
    # The panels have the same width, so that epochs stand below each other, and the bar
    # takes no more room than it needs.
    assert upper.bbox.x1 == pytest.approx(panel.bbox.x1)
    assert bar.bbox.x0 - panel.bbox.x1 < 50


def test_the_order_of_layers_is_that_of_the_longer_list():
    history = {"hoyer/a": [1], "hoyer/c": [1]}
    history |= {f"val_hoyer/{layer}": [1] for layer in "abc"}
    for shuffled in (history, dict(reversed(history.items()))):
        (panel,) = plots.sparsity(shuffled).axes
        names = [text.get_text() for text in panel.get_legend().get_texts()]
        assert "".join(names[:3]) in ("abc", "cba")
    history = {"val_hoyer/a": [1], "hoyer/a": [1], "hoyer/b": [1], "hoyer/c": [1]}
    (panel,) = plots.sparsity(history | {"val_hoyer/c": [1]}).axes
    names = [text.get_text() for text in panel.get_legend().get_texts()]
    assert names[:3] == ["a", "b", "c"]


def test_accuracy_has_a_panel_only_if_there_is_one():
    history = figures(FEW)
    assert len(plots.sparsity(history, accuracy=None).axes) == 1
    assert len(plots.sparsity(history, accuracy="auc").axes) == 1
    del history["accuracy"]
    upper, _ = plots.sparsity(history).axes
    assert [text.get_text() for text in upper.get_legend().get_texts()] == [
        "validation"
    ]
    history["binary_auc"] = history["val_accuracy"]
    upper, _ = plots.sparsity(history, accuracy="binary_auc").axes
    assert upper.get_ylabel() == "binary auc"


def test_several_metrics_have_a_panel_each():
    history = {**figures(FEW, metric="rms"), **figures(FEW), "mine/block1": [1] * 6}
    figure = plots.sparsity(history, ("hoyer", "rms", "mine"))
    assert [panel.get_ylabel().split("\n")[0] for panel in figure.axes] == [
        *("accuracy", "Hoyer sparsity", "RMS of activations", "mine")
    ]
    assert_readable(figure)


def test_the_mean_is_drawn_alone_if_logs_have_nothing_else():
    history = {"val_hoyer": [0.4, 0.5], "hoyer": [0.3, 0.4], "loss": [2, 1]}
    (panel,) = plots.sparsity(history).axes
    assert {line.get_label() for line in panel.get_lines()} == {"hoyer", "val_hoyer"}
    assert set(colours(panel.get_lines())) == {"#000000"}


def test_the_mean_of_one_layer_is_not_drawn():
    (panel,) = plots.sparsity(figures(["dense"]), accuracy=None).axes
    assert {line.get_label() for line in panel.get_lines()} == {
        *("hoyer/dense", "val_hoyer/dense")
    }


def test_epoch_places_the_readings_and_gaps_are_bridged():
    history = readings(FEW)
    # `fit` logged this one once an epoch.
    history["accuracy"] = [0.5, 0.6, 0.7, 0.8]
    upper, panel = plots.sparsity(history).axes
    np.testing.assert_array_equal(line(upper, "accuracy").get_xdata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(
        line(panel, "hoyer/hidden").get_xdata(), history["epoch"]
    )
    drawn = line(panel, "val_hoyer/hidden")
    np.testing.assert_array_equal(drawn.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(drawn.get_ydata(), [0.6] * 4)


def test_a_resumed_run_begins_at_its_own_epoch():
    history = {"hoyer/a": [0.1] * 4, "epoch": [5.5, 6, 6.5, 7], "accuracy": [0.5, 0.6]}
    upper, _ = plots.sparsity(history).axes
    np.testing.assert_array_equal(line(upper, "accuracy").get_xdata(), [6, 7])


@pytest.mark.parametrize("layers", [FEW, MANY[:20]])
def test_the_points_of_a_single_epoch_tell_training_from_validation(layers):
    figure = plots.sparsity(figures(layers, epochs=1))
    panel = figure.axes[1]
    for drawn in panel.get_lines():
        assert drawn.get_marker() not in ("", "None")
        is_open = str(drawn.get_markerfacecolor()) == "white"
        assert is_open == drawn.get_label().startswith("val_")
    faces = [str(h.get_markerfacecolor()) for h in panel.get_legend().legend_handles]
    assert faces.count("white") == 1
    assert [text for text, _ in words(figure)].count("1") == 1
    assert_readable(figure)


@pytest.mark.parametrize("epochs", [2, 3, 8, 100])
def test_ticks_are_whole_epochs(epochs):
    figure = plots.sparsity(figures(FEW, epochs))
    figure.draw_without_rendering()
    ticks = figure.axes[-1].get_xticks()
    np.testing.assert_array_equal(ticks, ticks.round())


def test_parts_of_an_epoch_have_ticks_too():
    history = {"hoyer/a": [0.1, 0.2], "epoch": [0.2, 0.7]}
    (panel,) = plots.sparsity(history).axes
    low, high = panel.get_xlim()
    assert sum(low <= tick <= high for tick in panel.get_xticks()) > 1


def test_silent_layers_draw_nothing():
    history = figures(FEW)
    history["hoyer/block1"] = [float("nan")] * 6
    panel = plots.sparsity(history).axes[-1]
    assert line(panel, "hoyer/block1").get_xdata().size == 0


def test_names_are_drawn_as_they_are():
    layers = ["_hidden", "cost_$a$", f"{'deep_' * 10}1", f"{'deep_' * 10}2"]
    figure = plots.sparsity(figures(layers))
    texts = [text for text, _ in words(figure)]
    assert " _hidden" in texts
    assert r"cost_\$a\$" in texts
    assert len([text for text in texts if "…" in text and len(text) < 30]) == 2
    assert_readable(figure)


def test_long_names_stay_different():
    layers = [f"encoder/first/{name}/{'x' * 30}" for name in "ab"]
    figure = plots.sparsity(figures(layers))
    assert len({text for text, _ in words(figure) if "xxx" in text}) == 2


def test_what_fit_returns_and_a_tracker_are_histories():
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, activation="relu", name="dense")]
    )
    model.compile("sgd", "mse", metrics=["accuracy"])
    x = np.random.default_rng(0).normal(size=(32, 4))
    tracker = SparsityTracker(x, verbose=0)
    run = model.fit(x, np.ones((32, 8)), epochs=2, verbose=0, callbacks=[tracker])
    for history in (run, run.history, tracker, {**run.history, **tracker.history}):
        panel = plots.sparsity(history).axes[-1]
        np.testing.assert_allclose(
            line(panel, "val_hoyer/dense").get_ydata(),
            tracker.history["val_hoyer/dense"],
        )
    assert len(plots.sparsity(run).axes) == 2
    assert len(plots.sparsity(tracker).axes) == 1


@pytest.mark.parametrize(("chosen", "epochs"), [(2, [2, 4]), ([1, 4], [1, 4])])
def test_a_tracker_says_which_epochs_were_validated(chosen, epochs):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, activation="relu", name="dense")]
    )
    model.compile("sgd", "mse", metrics=["mae"], run_eagerly=True)
    x, y = np.random.default_rng(0).normal(size=(8, 4)), np.ones((8, 8))
    tracker = SparsityTracker(verbose=0)
    options = {"validation_data": (x, y), "validation_freq": chosen, "epochs": 5}
    run = model.fit(x, y, verbose=0, callbacks=[tracker], **options)
    both = {**run.history, **tracker.history}
    upper, panel = plots.sparsity(both, accuracy="mae").axes
    np.testing.assert_array_equal(line(upper, "mae").get_xdata(), [1, 2, 3, 4, 5])
    validated = line(upper, "val_mae")
    np.testing.assert_array_equal(validated.get_xdata(), epochs)
    np.testing.assert_array_equal(validated.get_ydata(), run.history["val_mae"])
    measured = line(panel, "val_hoyer/dense")
    np.testing.assert_array_equal(measured.get_xdata(), epochs)
    np.testing.assert_array_equal(measured.get_ydata(), run.history["val_hoyer/dense"])
    # Either may have two of five epochs.
    for draw in (plots.sparsity, plots.heat_map):
        with pytest.raises(ValueError, match="`validation_freq` chose") as error:
            draw(run)
        assert "history['val_hoyer/dense'] with 2, where 5 are" in str(error.value)
        draw(tracker)
        draw(both)


def test_probe_data_do_not_say_which_epochs_were_validated():
    history = {"epoch": [1, 2, 3, 4], "val_hoyer/a": [0.5, 0.6, np.nan, np.nan]}
    history |= {"accuracy": [0.5] * 4, "val_accuracy": [0.6] * 2}
    with pytest.raises(ValueError, match=r"history\['val_accuracy'\] with 2, where 4"):
        plots.sparsity(history)


@pytest.mark.parametrize("metric", [(), 3, ("hoyer", 3)])
def test_metrics_are_names(metric):
    with pytest.raises(ValueError, match="`metric` must be the name") as error:
        plots.sparsity(figures(FEW), metric)
    assert f"Received: metric={metric!r}" in str(error.value)
