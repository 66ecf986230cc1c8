"""The picture of how activations spread."""

import numpy as np
import pytest
from pictures import MANY, assert_readable, words

from keras_sparseout import metrics, plots


class Histogram:
    """Fine logarithmic bins, with a bin for zeros in the middle."""

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


@pytest.mark.parametrize("count", [1, 3, 7])
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


@pytest.mark.parametrize("count", [3, 10])
def test_bars_and_zeros_are_all_activations(count):
    arrays = activations(count)
    figure = plots.histograms({n: Histogram(x) for n, x in arrays.items()})
    for panel, x in zip(figure.axes, arrays.values(), strict=True):
        shares, edges, _ = bars(panel)
        assert shares.sum() == pytest.approx(60)
        # As many bars as one can see.
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
        {n: Histogram(x) for n, x in activations(10, negative=False, zeros=0).items()}
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
