"""Masks of samples and timesteps: which ones layers take, and which they refuse."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import ActivationPenalty, TargetSparsity

X = np.random.default_rng(0).normal(size=(4, 6, 8)).astype("float32")
PRESENT = np.arange(6) < np.array([[2], [6], [3], [4]])


def train(layer, mask, x=X):
    """What a call in training leaves: the threshold, or the loss."""
    if isinstance(layer, TargetSparsity):
        layer(x, training=True, mask=mask)
        return np.array(layer.threshold)
    layer(x, mask=mask)
    return np.array(layer.losses[0])


# Each with the shape that a mask for X may have.
LAYERS = {
    "one threshold": (lambda: TargetSparsity(0.5), (4, 6, 8)),
    "a threshold for each unit": (lambda: TargetSparsity(0.5, axis=-1), (4, 6, 1)),
    "a mode": (lambda: TargetSparsity(0.5, centre="mode"), (4, 6, 8)),
    "L1": (lambda: ActivationPenalty(0.1), (4, 6)),
    "TAR": (lambda: ActivationPenalty(0.1, "tar"), (4, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("shape", [(4, 5), (3, 6), (6,), (4, 6, 3), (4, 6, 8, 1)])
def test_a_mask_of_other_sizes_is_refused(name, shape):
    make, wanted = LAYERS[name]
    layer = make()
    with pytest.raises(ValueError, match="`mask` must have the shape") as error:
        train(layer, np.ones(shape, bool))
    assert f"shape {wanted}, or the beginning" in str(error.value)
    assert f"Received: mask.shape={shape}. Give" in str(error.value)
    if isinstance(layer, TargetSparsity):
        assert not np.any(layer.threshold)


@pytest.mark.parametrize("name", LAYERS)
def test_a_mask_of_strings_is_refused(name):
    for mask in ("yes", np.full((4, 6), "yes")):
        with pytest.raises(ValueError, match=r"`mask` must be boolean.*dtype=string"):
            train(LAYERS[name][0](), mask)


def test_a_mask_for_each_unit_is_for_one_threshold_alone():
    kept = X * (np.abs(X) > 1)
    found = train(TargetSparsity(0.5), kept != 0, kept)
    assert found > 1
    with pytest.raises(ValueError, match=r"must have the shape \(4, 6, 1\)"):
        train(TargetSparsity(0.5, axis=-1), kept != 0, kept)
    with pytest.raises(ValueError, match=r"must have the shape \(4, 6\)"):
        train(ActivationPenalty(0.1), kept != 0, kept)


@pytest.mark.parametrize("name", LAYERS)
def test_numbers_lists_and_sizes_of_1_are_masks_too(name):
    make, _ = LAYERS[name]
    expected = train(make(), PRESENT)
    for same in (PRESENT.astype(int), PRESENT.astype("float32"), PRESENT.tolist()):
        np.testing.assert_array_equal(train(make(), same), expected)
    rows = np.array([[True], [False], [True], [True]])
    expected = train(make(), np.repeat(rows, 6, axis=1))
    for same in (rows, rows[:, 0]):
        np.testing.assert_array_equal(train(make(), same), expected)


def test_sizes_that_are_not_known_yet_pass():
    layer = TargetSparsity(0.5)

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, 8)),
            tf.TensorSpec((None, None), "bool"),
        ]
    )
    def step(x, mask):
        return layer(x, training=True, mask=mask)

    step(X, PRESENT)
    again = TargetSparsity(0.5)
    np.testing.assert_allclose(layer.threshold, train(again, PRESENT), rtol=1e-6)
    x = keras.Input((None, 8))
    model = keras.Model(x, TargetSparsity(0.5)(x, mask=keras.ops.any(x != 0, -1)))
    assert model(X, training=True).shape == X.shape
