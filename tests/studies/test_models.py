"""The models of the studies: LeNet-5 and wide residual networks."""

import itertools

import keras
import numpy as np
import pytest

from keras_sparseout import Sparseout
from studies import models


def noise(name):
    return Sparseout(0.3, q=1.5, jit_compile=False, name=name)


def scaling():
    return keras.layers.Rescaling(1 / 64, offset=-2.0)


def wrn(depth, width, place="after", shape=(32, 32, 3), classes=10):
    options = {"depth": depth, "width": width, "place": place}
    return models.wide_resnet(shape, classes, noise, scaling(), **options)


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_variables)


def weights_of(depth, width, channels, classes):
    """Number of weights of WRN-depth-width, counted from its description."""
    each, maps = (depth - 4) // 6, [16, 16 * width, 32 * width, 64 * width]
    count = channels * 16 * 9
    for before, after in itertools.pairwise(maps):
        for block in range(each):
            ins = before if block == 0 else after
            count += 2 * ins + ins * after * 9 + 2 * after + after * after * 9
            if ins != after:
                count += ins * after
    return count + 2 * maps[-1] + (maps[-1] + 1) * classes


def test_wrn_28_10_is_the_published_one():
    """Its authors give 36.5 million weights."""
    model = wrn(28, 10)
    assert trainable(model) == weights_of(28, 10, 3, 10) == 36_479_194
    names = models.wide_resnet_places(28)
    assert len(names) == 12
    shapes = [model.get_layer(name).output.shape[1:] for name in names]
    assert shapes == ([(32, 32, 160)] * 4 + [(16, 16, 320)] * 4 + [(8, 8, 640)] * 4)
    assert model.output_shape == (None, 10)


def test_a_wide_residual_network_trains():
    model = wrn(10, 1, shape=(8, 8, 1))
    # A step without a graph, which would take longer to trace than to run.
    model.compile(
        models.WRN_TRAINING.optimizer(391, 230),
        "sparse_categorical_crossentropy",
        run_eagerly=True,
    )
    before = model.get_layer("group3_block1_conv2").get_weights()[0]
    x = np.random.default_rng(0).integers(256, size=(2, 8, 8, 1)).astype("uint8")
    assert np.isfinite(model.train_on_batch(x, np.array([1, 2])))
    assert (model.get_layer("group3_block1_conv2").get_weights()[0] != before).any()


@pytest.mark.parametrize("place", ["between", "after"])
def test_where_the_noise_of_a_block_is(place):
    model = wrn(10, 1, place, (8, 8, 1))
    for name in models.blocks_of(10):
        parts = ("conv1", "norm2", "relu2", "conv2", "noise")
        conv1, norm, relu, conv2, noise = (
            model.get_layer(f"{name}_{part}") for part in parts
        )
        if place == "between":
            assert noise.input is conv1.output
            assert norm.input is noise.output
            assert conv2.input is relu.output
        else:
            assert norm.input is conv1.output
            assert noise.input is relu.output
            assert conv2.input is noise.output
    # Between them values have both signs.
    noises = [model.get_layer(name) for name in models.wide_resnet_places(10)]
    x = np.random.default_rng(0).integers(256, size=(2, 8, 8, 1))
    for values in keras.Model(model.inputs[0], [n.input for n in noises])(x):
        assert (np.min(values) < 0) == (place == "between")
        assert np.max(values) > 0


def test_a_shortcut_has_weights_where_the_shape_changes():
    def shortcuts(model):
        names = [layer.name for layer in model.layers]
        return [name for name in names if name.endswith("shortcut")]

    thin, wide = wrn(16, 1, shape=(8, 8, 1)), wrn(16, 2, shape=(8, 8, 1))
    assert shortcuts(thin) == ["group2_block1_shortcut", "group3_block1_shortcut"]
    assert shortcuts(wide) == ["group1_block1_shortcut", *shortcuts(thin)]
    assert trainable(wide) == weights_of(16, 2, 1, 10)
    # Where there is none, the block adds to what comes in.
    first = thin.get_layer("group1_block2_sum").input
    assert first[0] is thin.get_layer("group1_block1_sum").output


def test_all_weights_decay_by_the_published_factor():
    """The gradient of the penalty is factor times weight."""
    model = wrn(10, 1, shape=(8, 8, 1))
    squares = sum(float(np.sum(np.square(w))) for w in model.trainable_variables)
    penalty = float(sum(model.losses))
    assert penalty == pytest.approx(5e-4 / 2 * squares, rel=1e-5)


def test_the_learning_rate_drops_as_published_or_earlier_in_proportion():
    published = {1: 0.1, 59: 0.1, 61: 0.02, 121: 0.004, 161: 8e-4, 201: 1.6e-4}
    # 391 batches an epoch, and a tenth of the epochs with 100.
    for steps, epochs, each in ((391, 230, 391), (100, 23, 10)):
        optimizer, rates = models.WRN_TRAINING.optimizer(steps, epochs), {}
        for epoch in published:
            optimizer.iterations.assign(epoch * each)
            rates[epoch] = float(optimizer.learning_rate)
        assert rates == pytest.approx(published)
    assert optimizer.nesterov
    assert optimizer.momentum == 0.9


def test_lenet_5_has_its_weights_and_noise_behind_each_relu():
    model = models.lenet5((28, 28, 1), 10, noise, scaling())
    assert trainable(model) == 61_706
    noises = [model.get_layer(name) for name in models.LENET_PLACES]
    assert [layer.input.shape[1:] for layer in noises] == [
        (28, 28, 6),
        (10, 10, 16),
        (120,),
        (84,),
    ]
    x = np.random.default_rng(0).integers(256, size=(2, 28, 28, 1))
    for values in keras.Model(model.inputs[0], [n.input for n in noises])(x):
        assert np.min(values) == 0
        assert np.max(values) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 12, "width": 1}, "n >= 1 blocks in each of three groups. Received"),
        ({"depth": 4, "width": 1}, "Received: depth=4. Give 10, 16, 22"),
        ({"depth": 10, "width": 1, "place": "before"}, "Received: place='before'"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        wrn(**options)
