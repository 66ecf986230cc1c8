"""The picture of a controller: measurements, targets and what is moved."""

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from pictures import FEW, MANY, assert_readable, colours, line, readings

from keras_sparseout import plots


def test_control_draws_measurements_targets_and_what_is_moved():
    history = readings(FEW)
    targets = {"block1": 0.5, "hidden": 0.7}
    figure = plots.control(history, targets, metric="hoyer", bounds=(1, 4))
    upper, lower = figure.axes
    for layer in FEW:
        measured = line(upper, f"hoyer/{layer}")
        np.testing.assert_array_equal(measured.get_xdata(), history["epoch"])
        np.testing.assert_array_equal(measured.get_ydata(), history[f"hoyer/{layer}"])
        dots = line(upper, f"val_hoyer/{layer}")
        assert dots.get_linestyle() == "None"
        np.testing.assert_array_equal(dots.get_xdata(), [1, 2, 3, 4])
        moved = line(lower, f"q/{layer}")
        np.testing.assert_array_equal(moved.get_ydata(), history[f"q/{layer}"])
        assert dots.get_marker() == moved.get_marker()
        assert len(set(colours([measured, dots, moved]))) == 1
        dotted = [
            drawn.get_ydata()[0]
            for drawn in upper.get_lines()
            if drawn.get_linestyle() == ":" and colours([drawn]) == colours([moved])
        ]
        assert dotted == ([targets[layer]] if layer in targets else [])
    assert len({line(lower, f"q/{layer}").get_marker() for layer in FEW}) == 3
    bounds = [drawn.get_ydata() for drawn in lower.get_lines()[len(FEW) :]]
    assert bounds == [[1, 1], [4, 4]]
    assert upper.get_ylabel() == "Hoyer sparsity\n(0 dense, 1 sparse)"
    assert lower.get_ylabel().startswith("q\n")
    assert_readable(figure)


def test_dots_of_a_shared_target_take_turns():
    targets = {"block1": 0.5, "block2": 0.7, "hidden": 0.5}
    figure = plots.control(readings(FEW), targets, metric="hoyer")
    upper, _ = figure.axes
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[::-1, :, :3]
    # Left of the first reading there is nothing but targets and the grid.
    (left, low), (right, high) = upper.transData.transform([[-0.1, 0.48], [0.08, 0.52]])
    patch = picture[int(low) : int(high), int(left) : int(right)]
    for layer in ("block1", "hidden"):
        colour = matplotlib.colors.to_rgb(line(upper, f"hoyer/{layer}").get_color())
        near = np.abs(patch - 255 * np.array(colour)).max(-1) < 40
        assert near.any(), f"no dot of {layer}"


def test_weights_are_on_a_logarithmic_scale_with_a_place_for_0():
    history = readings(FEW, actuator="weight")
    options = {"metric": "hoyer", "actuator": "weight"}
    _, lower = plots.control(history, {"hidden": 0.5}, **options).axes
    assert lower.get_yscale() == "log"
    for least in (0, -9):
        figure = plots.control(history, {"hidden": 0.5}, bounds=(least, 3), **options)
        _, lower = figure.axes
        assert lower.get_yscale() == "symlog"
        to_axis = lower.yaxis.get_transform().transform
        low, high = lower.get_ylim()
        low, start, end, high = to_axis(np.array([low, least, 3, high]))
        assert start - low == pytest.approx(high - end)
        assert start > low
        assert_readable(figure)
    _, lower = plots.control(readings(FEW), {"hidden": 0.5}, metric="hoyer").axes
    assert lower.get_yscale() == "linear"


def test_control_of_many_layers_can_be_read():
    layers = MANY[:20]
    figure = plots.control(
        readings(layers), dict.fromkeys(layers, 0.5), metric="hoyer", bounds=(1, 4)
    )
    assert_readable(figure)
    upper, lower, bar = figure.axes
    assert upper.bbox.x1 == pytest.approx(lower.bbox.x1)
    assert bar.bbox.x0 - upper.bbox.x1 < 50


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"targets": {"hiden": 0.5}}, ["`targets`", "mean 'hidden'", *FEW]),
        ({"targets": {"other": 0.5}}, ["targets={'other': 0.5}", "these alone"]),
        ({"targets": {}}, ["`targets`", "Received: targets={}"]),
        ({"targets": 0.5}, ["Received: targets=0.5", "'block1'"]),
        ({"targets": {"hidden": "x"}}, ["Received: targets['hidden']='x'"]),
        ({"targets": {"hidden": float("inf")}}, ["targets['hidden']=inf"]),
        ({"metric": "rms"}, ["`metric`", "metric='rms'"]),
        ({"actuator": "rate"}, ["`actuator`", "actuator='rate'", "hoyer, q"]),
        ({"bounds": (4, 1)}, ["`bounds`", "Received: bounds=(4, 1)"]),
        ({"bounds": 4}, ["Received: bounds=4"]),
        ({"bounds": (1, None)}, ["Received: bounds=(1, None)"]),
    ],
)
def test_control_says_what_does_not_fit(changed, says):
    arguments = {"targets": {"hidden": 0.5}, "metric": "hoyer", **changed}
    with pytest.raises(ValueError, match="Received: ") as error:
        plots.control(readings(FEW), **arguments)
    for part in says:
        assert part in str(error.value)
