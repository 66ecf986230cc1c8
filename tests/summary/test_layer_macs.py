"""Products that a zero input makes needless, against counting them one by one."""

import math

import keras
import numpy as np
import pytest
from counted import behind_a_relu, count, rectified
from keras import layers as kl

SAME = {"padding": "same"}

# Class, options, and how many products each read of an element takes part in, without
# the second stage of separable convolutions.
CONVOLUTIONS = {
    "valid": (kl.Conv2D, {"filters": 5}, 5),
    "strided": (kl.Conv2D, {"filters": 5, "strides": 2, **SAME}, 5),
    "strided valid": (kl.Conv2D, {"filters": 5, "strides": 2}, 5),
    "dilated": (kl.Conv2D, {"filters": 5, "dilation_rate": 2, **SAME}, 5),
    "grouped": (kl.Conv2D, {"filters": 6, "groups": 2, **SAME}, 3),
    "depthwise": (kl.DepthwiseConv2D, {"depth_multiplier": 2, "strides": 2, **SAME}, 2),
    "separable": (kl.SeparableConv2D, {"filters": 5, **SAME}, 1),
    "causal": (kl.Conv1D, {"filters": 3, "padding": "causal", "dilation_rate": 2}, 3),
    "1D depthwise": (kl.DepthwiseConv1D, {"strides": 2}, 1),
    "1D separable": (kl.SeparableConv1D, {"filters": 3, "strides": 2}, 1),
    "3D": (kl.Conv3D, {"filters": 2, "strides": 2, **SAME}, 2),
}


def test_dense_layers_count_each_input_for_each_unit():
    x = rectified(5, 3, 4)
    share, table = behind_a_relu(kl.Dense(7), (3, 4), x)
    assert (share, table.macs) == (pytest.approx(np.mean(x == 0)), 84)
    assert table.effective_macs == pytest.approx(84 * np.mean(x != 0))


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_counts_each_product_within_its_input(case):
    kind, options, each = CONVOLUTIONS[case]
    rank = int(kind.__name__[-2])
    x = rectified(3, *(7, 8, 6)[:rank], 4)
    layer = kind(kernel_size=3, **options)
    share, table = behind_a_relu(layer, x.shape[1:], x)
    needless, total = count(
        x, 3, layer.strides[0], layer.dilation_rate[0], layer.padding
    )
    assert share == pytest.approx(needless / total, rel=1e-12)
    if "separable" not in case:
        assert table.macs == pytest.approx(total * each / 3, rel=1e-12)
        effective = (total - needless) * each / 3
        assert table.effective_macs == pytest.approx(effective, rel=1e-12)


@pytest.mark.parametrize(
    ("rank", "options"),
    [
        (1, {"padding": "same"}),
        (2, {"strides": 2, "padding": "same"}),
        (2, {"strides": 3, "padding": "same", "output_padding": 1}),
        (3, {"strides": 2}),
    ],
)
def test_a_transposed_convolution_counts_what_lands_in_its_output(rank, options):
    kind = (kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose)[rank - 1]
    layer = kind(2, 3, kernel_initializer="ones", use_bias=False, **options)
    shape = (*(4, 5, 3)[:rank], 2)
    x = rectified(3, *shape)
    share, table = behind_a_relu(layer, shape, x)
    # A lone one at an element sums up to the number of products that it takes part in.
    size = math.prod(shape)
    alone = np.eye(size, dtype="float32").reshape(size, *shape)
    uses = np.sum(layer(alone), axis=tuple(range(1, rank + 2)))
    needless = (x.reshape(3, size) == 0) @ uses
    assert share == pytest.approx(needless.sum() / (3 * uses.sum()), rel=1e-6)
    assert table.macs == pytest.approx(uses.sum(), rel=1e-6)


def test_worked_by_hand():
    x = np.array([[0.0], [2.0], [0.0], [4.0]], "float32")[None]
    # Outputs 0..3 read 0, 1 | 0, 1, 2 | 1, 2, 3 | 2, 3: ten products, 2 + 3 with zeros.
    share, table = behind_a_relu(kl.Conv1D(1, 3, padding="same"), (4, 1), x)
    assert (share, table.macs, table.effective_macs) == (0.5, 10, 5)
    # Without padding the zero at the border is read once: 6 products, 1 + 2 with zeros.
    share, table = behind_a_relu(kl.Conv1D(1, 3), (4, 1), x)
    assert (share, table.macs) == (0.5, 6)
    share, table = behind_a_relu(kl.Conv1D(1, 2, strides=2), (4, 1), x[:, ::-1])
    assert (share, table.macs) == (0.5, 4)
    # The last element is never read: products with 0, 2 and 0 alone.
    share, table = behind_a_relu(kl.Conv1D(1, 1, strides=2), (4, 1), x)
    assert (share, table.macs) == (1.0, 2)


@pytest.mark.parametrize("rank", [1, 2])
def test_both_stages_of_a_separable_convolution(rank):
    kind = (kl.SeparableConv1D, kl.SeparableConv2D)[rank - 1]
    layer = kind(5, 3, padding="same", depth_multiplier=2, activation="relu")
    layer.depthwise_initializer = "ones"
    x = rectified(2, *(7, 6)[:rank], 3) * (np.arange(7).reshape(7, *[1] * rank) < 2)
    _, table = behind_a_relu(layer, x.shape[1:], x.astype("float32"))
    needless, total = count(x, 3, 1, 1, "same")
    depthwise = keras.ops.depthwise_conv(x, layer.depthwise_kernel, padding="same")
    zeros = np.sum(np.array(depthwise) == 0)
    assert zeros
    assert table.macs * 2 == total * 2 + depthwise.numpy().size * 5
    assert (table.macs - table.effective_macs) * 2 == needless * 2 + zeros * 5


@pytest.mark.parametrize(
    ("equation", "output", "shape"),
    [
        ("abc,cd->abd", (None, 3), (6, 4)),
        ("abc,cde->abde", (None, 2, 3), (6, 4)),
        ("abcd,cde->abe", (None, 3), (6, 2, 4)),
        ("...c,cd->...d", (3,), (6, 4)),
        ("ab...,bc->ac...", (3, 6), (4, 6)),
        ("abc,bc->abc", (6, 4), (6, 4)),
    ],
)
def test_einsum_dense(equation, output, shape):
    layer = kl.EinsumDense(equation, output_shape=output)
    x = rectified(3, *shape)
    share, table = behind_a_relu(layer, shape, x)
    # With ones for the kernel, each product with a one adds a one.
    layer.kernel.assign(keras.ops.ones_like(layer.kernel))
    total = np.sum(layer(np.ones_like(x))) / 3
    assert table.macs == pytest.approx(total)
    needed = np.sum(layer((x != 0).astype("float32"))) / 3
    assert table.effective_macs == pytest.approx(needed)
    assert share == pytest.approx(1 - needed / total)


def test_half_precision_counts_alike():
    x, tables = rectified(2, 9, 7, 3), []
    for dtype in ("float32", "mixed_float16"):
        layer = kl.DepthwiseConv2D(3, strides=2, dtype=dtype)
        tables.append(behind_a_relu(layer, (9, 7, 3), x))
    assert tables[0][0] == tables[1][0]
    assert tables[0][1].macs == tables[1][1].macs
