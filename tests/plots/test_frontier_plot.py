"""The picture of what sparsity costs."""

import numpy as np
import pytest
from pictures import MANY, assert_readable, colours, rows

from keras_sparseout import plots


def test_each_actuator_is_a_curve_in_the_order_of_its_settings():
    data = rows()
    (panel,) = plots.frontier(data, sparsity="Gini index").axes
    assert panel.get_xlabel() == "Gini index"
    assert panel.get_ylabel() == "accuracy"
    lines = [container.lines[0] for container in panel.containers]
    for index, drawn in enumerate(lines):
        points = data[4 * index : 4 * index + 4]
        points.sort(key=lambda row: row["setting"])
        np.testing.assert_array_equal(
            drawn.get_xdata(), [p["sparsity"] for p in points]
        )
        np.testing.assert_array_equal(
            drawn.get_ydata(), [p["accuracy"] for p in points]
        )
    for look in (colours(lines), [n.get_marker() for n in lines]):
        assert len(set(look)) == 3
    legend = panel.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["q", "rate", "weight"]
    assert colours(legend.get_lines()) == colours(lines)
    assert len({n.get_linestyle() for n in lines}) == 3


def two_kinds(actuators=("q",), settings=(1, 2)):
    """Rows with two kinds of sparsity, and one deviation."""
    data = rows(actuators, settings)
    data = [{**row, "hoyer": row["sparsity"]} for row in data]
    return [{**row, "zeros": 0.1 * i, "zeros_std": 0.02} for i, row in enumerate(data)]


def test_a_panel_for_each_kind_of_sparsity():
    data = two_kinds(("q", "rate", "weight"), (4, 1, 2))
    kinds = {"hoyer": "Hoyer sparsity", "zeros": "fraction of zeros"}
    figure = plots.frontier(data, sparsity=kinds)
    first, second = figure.axes
    assert [panel.get_xlabel() for panel in figure.axes] == list(kinds.values())
    for key, panel in zip(kinds, figure.axes, strict=True):
        places = {(row[key], row["accuracy"]) for row in data}
        lines = [container.lines[0] for container in panel.containers]
        assert {tuple(xy) for line in lines for xy in line.get_xydata()} == places
        assert {text.xy for text in panel.texts} == places
        assert len(lines) == 3
        assert [bars.has_xerr for bars in panel.containers] == [key == "zeros"] * 3
    assert first.get_ylim() == second.get_ylim()
    assert second.get_legend() is None
    assert len(first.get_legend().get_texts()) == 3
    assert_readable(figure)


def test_keys_of_the_rows_that_no_panel_shows_are_left_alone():
    data = [{**row, "sparsity": "high", "sparsity_std": -1} for row in two_kinds()]
    (panel,) = plots.frontier(data, sparsity={"hoyer": "Hoyer"}).axes
    assert not any(bars.has_xerr for bars in panel.containers)


def test_panels_with_one_label_are_all_drawn():
    kinds = {"hoyer": "share", "zeros": "share"}
    assert len(plots.frontier(two_kinds(), sparsity=kinds).axes) == 2


@pytest.mark.parametrize("key", ["zeros", "hoyer"])
def test_each_row_has_all_kinds_of_sparsity(key):
    data = two_kinds()
    del data[1][key]
    with pytest.raises(ValueError, match=r"Received: rows\[1\]=") as error:
        plots.frontier(data, sparsity={"hoyer": "Hoyer", "zeros": "zeros"})
    assert str(error.value).endswith(f"Add {key}.")


@pytest.mark.parametrize("labels", [{}, {1: "Hoyer"}])
def test_labels_have_keys(labels):
    with pytest.raises(ValueError, match="`sparsity` must be a label, or") as error:
        plots.frontier(rows(), sparsity=labels)
    assert f"Received: sparsity={labels!r}. Give for example" in str(error.value)


def test_no_two_of_many_curves_look_alike():
    (panel,) = plots.frontier(rows(MANY[:20], settings=(1,))).axes
    lines = [container.lines[0] for container in panel.containers]
    looks = zip(colours(lines), [n.get_marker() for n in lines], strict=True)
    assert len(set(looks)) == 20


def test_settings_stand_beside_their_points():
    data = rows(settings=(0.25, 0.5, 1, 1.5, 2, 3, 4, 5, 6))
    figure = plots.frontier(data)
    (panel,) = figure.axes
    for index, container in enumerate(panel.containers):
        texts = panel.texts[6 * index : 6 * index + 6]
        assert [t.get_text() for t in texts] == ["0.25", "1", "1.5", "3", "4", "6"]
        points = {row["setting"]: row for row in data[9 * index : 9 * index + 9]}
        for text in texts:
            row = points[float(text.get_text())]
            assert text.xy == (row["sparsity"], row["accuracy"])
        assert set(colours(texts)) == set(colours(container.lines[:1]))
    assert_readable(figure)
    places = panel.transData.transform([(r["sparsity"], r["accuracy"]) for r in data])
    for text in panel.texts:
        box = text.get_window_extent()
        assert not box.count_contains(places)
        nearest = np.hypot(*(places - (box.p0 + box.p1) / 2).T).min()
        assert nearest < 40


def test_error_bars_where_there_is_a_spread():
    data = rows(["q", "rate"])
    data[0] |= {"sparsity_std": 0.01, "accuracy_std": 0.02}
    (panel,) = plots.frontier(data).axes
    with_bars, without = panel.containers
    assert with_bars.has_xerr
    assert with_bars.has_yerr
    assert not without.has_xerr
    across, up = (bars.get_segments() for bars in with_bars.lines[2])
    # The first row has setting 4, so its point is the last one of the curve.
    assert np.ptp(across[3], axis=0) == pytest.approx([0.02, 0])
    assert np.ptp(up[3], axis=0) == pytest.approx([0, 0.04])


def test_a_point_that_is_not_known_is_left_out():
    data = rows(["q"])
    data[1]["accuracy"] = float("nan")
    figure = plots.frontier(data)
    assert [text.get_text() for text in figure.axes[0].texts] == ["2", "3", "4"]
    assert_readable(figure)


@pytest.mark.parametrize("key", ["actuator", "setting", "sparsity", "accuracy"])
def test_a_row_that_lacks_a_key_says_so(key):
    data = rows()
    del data[2][key]
    with pytest.raises(ValueError, match=r"`rows`.*Received: rows\[2\]=") as error:
        plots.frontier(data)
    assert str(error.value).endswith(f"Add {key}.")


@pytest.mark.parametrize("key", ["setting", "sparsity", "accuracy", "accuracy_std"])
def test_rows_have_numbers(key):
    data = [{**row, key: "high"} for row in rows()]
    with pytest.raises(ValueError, match="`rows` must have numbers at") as error:
        plots.frontier(data)
    assert f"Received: rows[0][{key!r}]='high'" in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("actuator", 3, "a string under the key 'actuator'"),
        ("accuracy_std", -0.1, "no negative number at 'accuracy_std'"),
    ],
)
def test_rows_have_names_and_no_negative_deviations(key, value, rule):
    data = [{**row, key: value} for row in rows()]
    with pytest.raises(ValueError, match=f"`rows` must have {rule}") as error:
        plots.frontier(data)
    assert f"Received: rows[0][{key!r}]={value!r}. Give" in str(error.value)


@pytest.mark.parametrize("data", [[], None, {"q": 1}, "rows"])
def test_rows_are_a_list(data):
    with pytest.raises(ValueError, match="`rows` must be a list") as error:
        plots.frontier(data)
    assert f"Received: rows={data!r}" in str(error.value)
