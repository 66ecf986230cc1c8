"""The heat map: a row for each layer, a column for each epoch."""

import numpy as np
import pytest
from pictures import FEW, MANY, assert_readable, figures, readings

from keras_sparseout import plots


@pytest.mark.parametrize("count", [1, 20, 60])
def test_a_heat_map_has_a_row_a_layer_and_a_column_an_epoch(count):
    layers = MANY[:count]
    history = figures(layers)
    figure = plots.heat_map(history)
    panel, bar = figure.axes
    (mesh,) = panel.collections
    drawn = mesh.get_array().reshape(count, 6)
    np.testing.assert_array_equal(drawn, [history[f"val_hoyer/{n}"] for n in layers])
    corners = mesh.get_coordinates()
    np.testing.assert_array_equal(corners[0, :, 0], np.arange(7) + 0.5)
    # Rows stand at the ticks that name them, the first at the top.
    names = {t.get_loc(): t.label1.get_text() for t in panel.yaxis.get_major_ticks()}
    assert names == dict(enumerate(layers))
    np.testing.assert_array_equal(corners[:, 0, 1], np.arange(count + 1) - 0.5)
    assert panel.get_ylim()[0] > panel.get_ylim()[1]
    assert bar.get_ylabel() == (
        "Hoyer sparsity (0 dense, 1 sparse)\nvalidation or probe data"
    )
    assert_readable(figure)


def test_a_heat_map_of_training_where_there_is_nothing_else():
    history = figures(FEW, kinds=[""])
    panel, bar = plots.heat_map(history).axes
    np.testing.assert_array_equal(
        panel.collections[0].get_array(), [history[f"hoyer/{n}"] for n in FEW]
    )
    assert bar.get_ylabel().endswith("\ntraining data")


def test_a_heat_map_has_grey_gaps_and_says_what_they_are():
    history = figures(FEW)
    assert plots.heat_map(history).axes[0].get_legend() is None
    history["val_hoyer/block2"][3] = float("nan")
    figure = plots.heat_map(history)
    panel = figure.axes[0]
    figure.draw_without_rendering()
    red, green, blue, alpha = panel.collections[0].get_facecolor()[6 + 3]
    assert red == green == blue == 0.75
    assert alpha == 1
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["no value"]
    assert_readable(figure)


def test_a_heat_map_leaves_out_where_nothing_was_read():
    history = readings(FEW)
    (mesh,) = plots.heat_map(history).axes[0].collections
    np.testing.assert_array_equal(mesh.get_array(), np.full((3, 4), 0.6))
    np.testing.assert_array_equal(
        mesh.get_coordinates()[0, :, 0], [0.5, 1.5, 2.5, 3.5, 4.5]
    )


def test_a_heat_map_of_silent_layers_is_all_grey():
    (mesh,) = plots.heat_map({"hoyer/a": [float("nan")] * 2}).axes[0].collections
    assert mesh.get_array().mask.tolist() == [[True, True]]


def test_the_column_of_a_single_epoch_is_one_epoch_wide():
    (mesh,) = plots.heat_map({"hoyer/a": [0.5]}).axes[0].collections
    np.testing.assert_array_equal(mesh.get_coordinates()[0, :, 0], [0.5, 1.5])


def test_rows_have_one_length():
    history = {"hoyer/a": [0.1, 0.2], "hoyer/b": [0.1], "epoch": [0.5, 1.0]}
    with pytest.raises(ValueError, match=r"Received: history\['hoyer/b'\] with 1"):
        plots.heat_map(history)


def test_means_alone_make_no_heat_map():
    with pytest.raises(ValueError, match=r"mean over the layers.*per_layer=True"):
        plots.heat_map({"val_hoyer": [0.5], "loss": [1]})
