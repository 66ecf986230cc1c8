"""The pictures of how activations spread, and of what sparsity costs."""

import numpy as np
import pytest
from pictures import MANY, assert_readable, colours, rows, words

from keras_sparseout import metrics, plots


class Histogram:
    """Fine logarithmic bins, with one for zeros between them."""

    def __init__(self, x):
        powers = 2.0 ** np.linspace(-24, 16, 40 * 64 + 1)
        self.edges = np.concatenate([-powers[::-1], powers])
        self.counts = np.histogram(x, self.edges)[0]

    def histogram(self):
        return self.edges, self.counts


def activations(count, negative=True, zeros=0.4):
    """Arrays of activations by layer, each with its own scale."""
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(count, 5000)) * np.linspace(0.5, 5, count)[:, None]
    if not negative:
        arrays = np.abs(arrays)
    arrays[:, : int(zeros * 5000)] = 0
    return dict(zip(MANY, arrays, strict=False))


def bars(panel):
    (stairs,) = panel.patches
    return stairs.get_data()


@pytest.mark.parametrize("count", [1, 3, 7, 20])
def test_each_layer_has_a_panel_that_can_be_read(count):
    arrays = activations(count)
    figure = plots.histograms({n: Histogram(x) for n, x in arrays.items()})
    assert [panel.get_title() for panel in figure.axes] == list(arrays)
    assert_readable(figure)
    first = figure.axes[0]
    for panel in figure.axes:
        assert panel.get_xlim() == first.get_xlim()
        assert panel.get_ylim() == first.get_ylim()
    texts = [text for text, _ in words(figure)]
    assert texts.count("zeros 40 %") == count
    assert {"activation", "share of activations (%)"} < set(texts)


@pytest.mark.parametrize("count", [3, 20])
def test_bars_and_zeros_are_all_activations(count):
    arrays = activations(count)
    figure = plots.histograms({n: Histogram(x) for n, x in arrays.items()})
    for panel, x in zip(figure.axes, arrays.values(), strict=True):
        shares, edges, _ = bars(panel)
        assert shares.sum() == pytest.approx(60)
        # About so many bars as can be seen.
        assert 20 < len(shares) <= 40
        expected = np.histogram(x[x != 0], edges)[0] / len(x)
        np.testing.assert_allclose(shares, 100 * expected, atol=1e-9)


def test_a_streaming_histogram_is_drawn():
    metric = metrics.ActivationHistogram()
    metric.update_state(np.array([[0.0, 0.0, 0.0, 0.5], [-0.1, 0.2, 0.3, 4.0]]))
    (panel,) = plots.histograms({"a": metric}).axes
    assert [text.get_text() for text in panel.texts] == ["zeros 38 %"]
    shares, edges, _ = bars(panel)
    assert shares[edges[:-1] > 0.05].sum() == pytest.approx(50)
    assert shares[edges[1:] < -0.05].sum() == pytest.approx(12.5)


def test_no_text_lies_over_a_bar():
    figure = plots.histograms(
        {n: Histogram(x) for n, x in activations(20, negative=False, zeros=0).items()}
    )
    figure.draw_without_rendering()
    for panel in figure.axes:
        shares, _, _ = bars(panel)
        (text,) = panel.texts
        _, top = panel.transData.transform((0, shares.max()))
        assert text.get_window_extent().y0 > top


def test_the_axis_has_a_negative_side_if_something_is_negative():
    arrays = activations(3, negative=False)
    figure = plots.histograms({n: Histogram(x) for n, x in arrays.items()})
    assert figure.axes[0].get_xlim()[0] == 0
    arrays["signed"] = -arrays[MANY[0]]
    figure = plots.histograms({n: Histogram(x) for n, x in arrays.items()})
    low, high = figure.axes[0].get_xlim()
    assert low < min(x.min() for x in arrays.values())
    assert high > max(x.max() for x in arrays.values())
    assert_readable(figure)


def test_the_linear_piece_holds_next_to_nothing():
    x = np.abs(np.random.default_rng(0).normal(size=100_000))
    (panel,) = plots.histograms({"a": Histogram(x)}).axes
    linear = panel.xaxis.get_transform().linthresh
    assert linear == 0.01
    assert np.mean(x < linear) < 0.01


@pytest.mark.parametrize(
    ("edges", "counts", "says"),
    [
        ([-1, -0.1, -1e-9, 1e-9, 0.1, 1], [0, 0, 43, 27, 30], "zeros 43 %"),
        ([-1, -0.1, 0, 0, 0.1, 1], [5, 5, 30, 30, 30], "zeros 30 %"),
        ([0, 1e-9, 0.1, 1], [3, 0, 1], "zeros 75 %"),
        ([-1, -1e-9, 0, 1e-9, 1], [1, 1, 4, 4], "zeros 40 %"),
        ([-1, -0.5, 0.5, 1], [1, 2, 1], ""),
        ([0, 0.5, 1], [1, 1], ""),
        ([1, 2, 3], [1, 1], ""),
        ([0, 1e-9, 1], [9997, 3], "zeros 99.97 %"),
        ([0, 1e-9, 1], [3, 9997], "zeros 0.03 %"),
        ([0, 1e-9, 1], [0, 1], "zeros 0 %"),
        ([0, 1e-9, 1], [1, 0], "zeros 100 %"),
        ([0, 1e-9, 1], [0, 0], "no activations"),
    ],
)
def test_zeros_are_what_lies_in_a_narrow_bin_at_0(edges, counts, says):
    (panel,) = plots.histograms({"a": (edges, counts)}).axes
    assert [text.get_text() for text in panel.texts] == [says]
    zeros = float(says.split()[1]) if says.startswith("zeros") else 0
    shares, _, _ = bars(panel)
    assert shares.sum() == pytest.approx(100 - zeros if any(counts) else 0)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("", "activation on training data"),
        ("val_", "activation on validation or probe data"),
    ],
)
def test_keys_of_a_tracker_are_read(kind, says):
    histograms = {f"{kind}activations/{name}": ([0, 1, 2], [1, 2]) for name in "ab"}
    figure = plots.histograms(histograms)
    assert [panel.get_title() for panel in figure.axes] == ["a", "b"]
    assert says in [text for text, _ in words(figure)]
    figure = plots.histograms({**histograms, "other": ([0, 1, 2], [1, 2])})
    assert figure.axes[0].get_title() == f"{kind}activations/a"


@pytest.mark.parametrize(
    "item",
    [
        ([1, 0], [1]),
        ([0, 1], [1, 1]),
        ([0, 1], [-1]),
        ([0, np.inf], [1]),
        ([0, 1], [np.nan]),
        ([0, 0], [1]),
        ([0], []),
        ([[0, 1]], [1]),
        ([0, 1],),
        "ab",
        None,
    ],
)
def test_what_is_no_histogram_is_refused(item):
    with pytest.raises(ValueError, match=r"`histograms` must be pairs") as error:
        plots.histograms({"a": ([0, 1], [1]), "b": item})
    assert f"Received: histograms['b']={item!r}" in str(error.value)


@pytest.mark.parametrize("histograms", [{}, None, [([0, 1], [1])]])
def test_histograms_are_by_layer(histograms):
    with pytest.raises(ValueError, match=r"`histograms` must be a dict") as error:
        plots.histograms(histograms)
    assert f"Received: histograms={histograms!r}" in str(error.value)


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


def test_no_two_of_many_curves_look_alike():
    (panel,) = plots.frontier(rows(MANY[:20])).axes
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
    # That of setting 4, the first of the rows, is the last of the curve.
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
        ("actuator", 3, "names at 'actuator'"),
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
