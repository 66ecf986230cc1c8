"""`sparsify` of models whose outputs have names, or are strings."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl
from sparsified import normal, run

from keras_sparseout import sparsify
from keras_sparseout.models.thresholds import arguments
from keras_sparseout.models.thresholds.places import Place
from keras_sparseout.models.thresholds.sparsification import Sparsification

X, Y = normal(60, 8), normal(60, 2, seed=1)
BOTH = {"a": Y, "b": Y + 1}


def two_outputs(by_key=False):
    x = keras.Input((8,))
    h = kl.Dense(8, "gelu", name="h")(x)
    outputs = [kl.Dense(2, name=name)(h) for name in "ab"]
    if by_key:
        outputs = dict(zip("ab", outputs, strict=True))
    model = keras.Model(x, outputs)
    model.compile("sgd", {"a": "mse", "b": "mae"}, metrics={"a": ["mae"]})
    return model


class Batches(keras.utils.PyDataset):
    """All of the data in one batch."""

    def __len__(self):
        return 1

    def __getitem__(self, number):
        return X, BOTH


def labelled(kind):
    if kind == "data set":
        return {"x": tf.data.Dataset.from_tensor_slices((X, BOTH)).batch(60)}
    return {"x": Batches()} if kind == "PyDataset" else {"x": X, "y": BOTH}


def started(model, name):
    """The work of `sparsify` for thresholds after the layer `name`."""
    options = arguments.check(0.5, None, [name], "after", None, None)
    place = Place(name, model.get_layer(name))
    return Sparsification(model, [place], options, [X], lambda: None)


def scores(model, name, metrics, data):
    """What `sparsify` shows before there are thresholds after the layer `name`."""
    work = started(model, name)
    work.use_metrics(metrics)
    return work.scores(data)


@pytest.mark.parametrize("kind", ["arrays", "data set", "PyDataset"])
def test_labels_go_by_the_names_of_the_outputs(kind):
    model = two_outputs()
    found = scores(model, "a", None, labelled(kind))
    y = dict(zip("ab", run(model, X), strict=True))
    assert set(found) == {"loss", "a_loss", "b_loss", "a_mae"}
    assert found["a_mae"] == pytest.approx(np.abs(y["a"] - Y).mean(), rel=1e-5)
    expected = np.mean((y["a"] - Y) ** 2) + np.abs(y["b"] - Y - 1).mean()
    assert found["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("by_key", "metrics", "names"),
    [
        (False, {"a": "mae", "b": ["mse"]}, {"a_mae", "b_mse"}),
        (True, {"b": "mse"}, {"b_mse"}),
    ],
)
def test_metrics_go_by_the_names_of_the_outputs(by_key, metrics, names):
    model = two_outputs(by_key)
    assert set(scores(model, "b", metrics, labelled("arrays"))) == names


def test_the_table_has_the_names_of_the_model():
    model = two_outputs()
    options = {"layers": ["a"], "where": "after", "y": BOTH}
    new, table = sparsify(model, X, 0.5, **options, return_table=True, verbose=0)
    before, after = table.metrics["a_mae"]
    for each, shown in ((model, before), (new, after)):
        error = np.abs(run(each, X)[0] - Y).mean()
        assert shown == pytest.approx(error, rel=1e-5)
    assert model.output_names == ["a", "b"]
    assert new.output_names == ["a_threshold", "b"]


def test_a_metric_with_a_figure_for_each_class_counts_as_their_mean():
    model = two_outputs()
    labels = np.eye(2)[np.arange(60) % 2]
    metric = keras.metrics.F1Score()
    found = scores(model, "a", [metric, None], {"x": X, "y": [labels, labels]})
    metric.reset_state()
    metric.update_state(labels, run(model, X)[0])
    figures = np.asarray(metric.result())
    assert figures.shape == (2,)
    assert found == {"a_f1_score": pytest.approx(figures.mean())}


def one_output(cls=keras.Model, **options):
    model = two_outputs()
    model = cls(model.input, model.outputs[0])
    model.compile(**options, run_eagerly=True)
    return model


class OwnCompile(keras.Model):
    def compile(self, optimizer, *, run_eagerly):
        super().compile(optimizer, "mse", run_eagerly=run_eagerly)


@pytest.mark.filterwarnings("ignore:The copy of .* is not compiled:UserWarning")
@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            one_output(loss="mse", metrics=[lambda y, y_pred: y_pred]),
            "Keras can't make again what it was compiled with",
        ),
        (one_output(OwnCompile, optimizer="sgd"), "a `compile` of its own"),
        (one_output(metrics=["mae"]), "it is compiled without a loss"),
    ],
    ids=["lambda", "own compile", "no loss"],
)
def test_scores_that_keras_has_not_are_left_out_or_said(model, says):
    work, data = started(model, "h"), {"x": X, "y": Y, "batch_size": 60}
    assert work.first_scores(None, data, are_asked=False) == {}
    with pytest.raises(ValueError, match=says) as error:
        work.first_scores(None, data, are_asked=True)
    assert "`metrics` must be given with `y` if" in str(error.value)
    if type(model) is OwnCompile:
        with pytest.raises(ValueError, match="`metrics` must be left out if"):
            work.use_metrics("mae")
        return
    found = work.first_scores("mae", data, are_asked=True)["mae"]
    assert found == pytest.approx(np.abs(run(model, X) - Y).mean())


@pytest.mark.filterwarnings("ignore:The copy of .* is not compiled:UserWarning")
def test_a_line_says_why_there_are_no_scores():
    model = one_output(loss="mse", metrics=[lambda y, y_pred: y_pred])
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(60)
    _, table = sparsify(model, data, 0.5, return_table=True, verbose=0)
    assert not table.metrics
    assert "Loss and metrics left out: Keras can't make again" in str(table)


class Largest(kl.Layer):
    """The number of the largest logit."""

    def call(self, x):
        return keras.ops.argmax(x, axis=-1)


def named(with_logits):
    """A classifier that returns the names of its classes."""
    x = keras.Input((8,))
    y = kl.Dense(3, name="logits")(kl.Dense(8, "gelu", name="h")(x))
    lookup = kl.StringLookup(
        vocabulary=["cat", "dog", "owl"], num_oov_indices=0, invert=True
    )
    names = lookup(Largest()(y))
    return keras.Model(x, {"name": names, "logits": y} if with_logits else names)


def test_strings_beside_numbers_do_not_count():
    keras.utils.set_random_seed(0)
    model = named(with_logits=True)
    sparse, table = sparsify(model, X, budget=0.8, return_table=True, verbose=0)
    before, after = run(model, X)["logits"], run(sparse, X)["logits"]
    change = np.sum((after - before) ** 2) / np.sum(before**2)
    assert table.change == pytest.approx(change, rel=1e-3)
    assert set(run(sparse, X)["name"]) <= {b"cat", b"dog", b"owl"}


def test_strings_alone_have_a_target_but_no_budget():
    model = named(with_logits=False)
    _, table = sparsify(model, X, 0.5, return_table=True, verbose=0)
    assert np.isnan(table.change)
    assert "the outputs change is not known: they are strings." in str(table)
    assert table.rows[0]["zeros_after"] == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ValueError, match=r"all outputs .* strings.*budget=0\.8\. Give"):
        sparsify(model, X, budget=0.8, verbose=0)
