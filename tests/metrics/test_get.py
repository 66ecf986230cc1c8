"""Metrics are found by name, by function, and as they are."""

import keras
import pytest

from keras_sparseout import metrics
from keras_sparseout.metrics.get import METRICS, check_metrics, get


def spread(x):
    return keras.ops.std(x, axis=-1)


@pytest.mark.parametrize("name", METRICS)
def test_a_name_and_the_function_of_that_name_give_the_same_metric(name):
    metric = get(name)
    assert type(metric) is METRICS[name]
    assert metric.name == name
    if name != "histogram":
        from_function = get(getattr(metrics, name), name=name)
        assert type(from_function) is type(metric)
        assert from_function.get_config() == metric.get_config()


def test_another_function_gives_its_mean_over_samples():
    metric = get(spread, axis=None, name="spread")
    assert type(metric) is metrics.SampleMean
    assert (metric.function, metric.axis, metric.name) == (spread, None, "spread")


def test_a_streaming_metric_is_returned_unchanged():
    metric = metrics.Gini(name="mine")
    assert get(metric, axis=None, name="other") is metric
    assert metric.axis == -1


def test_the_axis_goes_to_the_metrics_that_have_one():
    found = check_metrics(["hoyer", "rms", spread], axis=None)
    assert list(found) == ["hoyer", "rms", "spread"]
    assert found["hoyer"].axis is found["spread"].axis is None
    assert not hasattr(found["rms"], "axis")


@pytest.mark.parametrize(
    ("identifier", "remedy"),
    [
        ("hoyr", "Did you mean 'hoyer'?"),
        (3, "Give one of these."),
        (metrics.Hoyer, "Give one of these."),
        (keras.metrics.Mean(), "Give one of these."),
    ],
    ids=["typo", "number", "class", "Keras metric"],
)
def test_what_is_no_metric_is_named_with_the_remedy(identifier, remedy):
    with pytest.raises(ValueError, match="`metrics` must be functions") as error:
        get(identifier)
    assert f"Received: metrics={identifier!r}. " in str(error.value)
    assert str(error.value).endswith(remedy)
