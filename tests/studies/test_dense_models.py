"""The models of the study `sparsity`."""

import keras
import numpy as np
import pytest

from studies.parts.sparsity import dense_models

X = np.array([[3.0, 0.0, -1.0, 2.0], [0.5, 4.0, 1.0, -6.0]], "float32")


def test_the_largest_of_each_sample_are_kept():
    layer = dense_models.TopK(0.5)
    kept = [[3, 0, 0, 2], [0, 4, 0, -6]]
    for training in (False, True):
        assert layer(X, training=training).numpy().tolist() == kept
    assert dense_models.TopK(0)(X).numpy().tolist() == X.tolist()
    # One is left, whatever is asked.
    assert np.count_nonzero(dense_models.TopK(0.99)(X)) == 2
    again = dense_models.TopK.from_config(layer.get_config())
    assert again(X).numpy().tolist() == kept


@pytest.mark.parametrize("zeros", [-0.1, 1, float("nan")])
def test_a_share_that_is_none_is_refused(zeros):
    with pytest.raises(ValueError, match=f"`zeros` must be .*zeros={zeros}"):
        dense_models.TopK(zeros)


def test_odds_are_multiplied():
    assert dense_models.scaled_rate(0.5, 2) == pytest.approx(2 / 3)
    assert dense_models.scaled_rate(0.2, 1) == pytest.approx(0.2)
    p = dense_models.scaled_rate(0.3, 2 / 3)
    assert p / (1 - p) == pytest.approx(2 / 3 * 0.3 / 0.7)


def kinds(*arguments):
    return [type(each).__name__ for each in dense_models.regularizer(*arguments).layers]


def test_each_method_makes_its_layers():
    held = dense_models.regularizer("held", 1.5, 0.3).layers[0]
    assert (held.q, held.rate, held.stop_gradient) == (1.5, 0.3, True)
    through = dense_models.regularizer("through", 3.0, 0.5).layers[0]
    assert (through.q, through.stop_gradient) == (3, False)
    assert through.rate == pytest.approx(0.4)
    fraction = dense_models.regularizer("fraction", 1.0, 0.5).layers[0]
    assert (fraction.q, fraction.rate, fraction.target_fraction) == (1, 0.5, 0.75)
    assert kinds("nothing", 0.0, 0.0) == ["Identity"]
    assert kinds("l1", 1e-3, 0.0) == ["ActivationPenalty"]
    assert kinds("l1", 1e-3, 0.5) == ["ActivationPenalty", "Sparseout"]
    assert kinds("threshold", 0.8, 0.0) == ["TargetSparsity"]
    assert kinds("top_k", 0.8, 0.0) == ["TopK"]
    [penalty] = dense_models.regularizer("hoyer_square", 1e-3, 0.0).layers
    assert penalty.kind == "hoyer_square"


@pytest.mark.parametrize("method", dense_models.METHODS)
def test_what_cuts_is_measured_and_noise_is_not(method):
    """At inference the place is the activations before noise and penalties."""
    setting = 0.5 if method in ("threshold", "top_k") else 1.0
    place = dense_models.regularizer(method, setting, 0.5)
    cut = [[3, 0, 0, 2], [0, 4, 0, -6]] if method == "top_k" else X.tolist()
    assert place(X, training=False).numpy().tolist() == cut
    assert place.name == dense_models.PLACE


@pytest.mark.parametrize("task", dense_models.TASKS)
def test_a_model_has_what_is_asked(task):
    behind = dense_models.regularizer("nothing", 0.0, 0.0)
    model = dense_models.build(task, "tanh", True, behind)
    assert [type(layer).__name__ for layer in model.layers] == [
        "Dense",
        "BatchNormalization",
        "Activation",
        "Sequential",
        "Dense",
    ]
    assert model.layers[2].activation is keras.activations.tanh
    assert model.output_shape == (None, 10 if task == "classifier" else 784)
