"""activation_sparsity: how sparse the activations of a whole model are, in one call."""

from collections.abc import Sequence
from typing import Any, Literal

import keras

from keras_sparseout.backend import tracing
from keras_sparseout.measure import layer_selection
from keras_sparseout.measure.layer_selection import LayerChoice
from keras_sparseout.measure.probe_data import ProbeData, as_tensor
from keras_sparseout.metrics import get
from keras_sparseout.summary.model_reader import ModelReader
from keras_sparseout.summary.table import SparsityTable
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Data

_METRICS = ("hoyer", "zero_fraction", "dead_units", "rms")
_BATCHES_WITHOUT_BAR = 20


def activation_sparsity(
    model: keras.Model,
    x: Data,
    *,
    layers: LayerChoice | Sequence[LayerChoice] | None = None,
    where: Literal["input", "output"] | None = None,
    axis: Literal[-1] | None = -1,
    batch_size: int = 256,
    steps: int | None = None,
    verbose: int = 1,
) -> SparsityTable:
    """Measures how sparse the activations of each layer of a model are, on data `x`.

    The model runs as in inference, and keeps its weights, seeds and recurrent states.
    The table has these columns:

    - `layer`: the path of the layer, such as "encoder/dense" for a nested one;
    - `kind`: its class;
    - `shape`: the shape of one sample's activations, channels last, with None where it
      varies;
    - `hoyer`, `zeros`: `metrics.hoyer` and `metrics.zero_fraction`, averaged over the
      samples like `metrics.Hoyer`;
    - `dead`, `rms`: `metrics.dead_units` and `metrics.rms` over all samples;
    - `needless_macs`: the share of the next layers' multiply-accumulates (MACs) that
      have a zero input, None if there is no next layer.

    A convolution reads some elements of its input less often than others, because of
    borders and strides. Let `uses_i` be the number of products w_j * x_i that a layer
    computes with element i of a sample, without those with padding. Then

        macs = sum_i uses_i
        needless_macs = sum_i [x_i = 0] * uses_i / macs
        effective MACs = (1 - needless_macs) * macs

    averaged over the samples. A product x_i * y_j of two activations, as in attention,
    is needless if either is zero. Hardware or code that skips zeros could save the
    needless MACs. TensorFlow computes them.

    The next layers are those that the activations reach without another product on the
    way. They may pass through activations, normalization, pooling, sums and custom
    layers. Zeros are counted where they enter the next layer, so a linear layer and the
    ReLU behind it have the same `needless_macs`. If there are several next layers,
    their MACs are added.

    Below the table are the MACs of the whole model, in total and for each class of
    layer. They count Dense, EinsumDense, convolutions (both stages of separable ones),
    RNNs with LSTM, GRU, SimpleRNN and ConvLSTM cells including their states, and
    products of matrices and of `einsum` anywhere else, such as in attention and custom
    layers. They do not count elementwise products, such as those in normalization. A
    separate line names what can't be counted: other RNN cells, states that do not begin
    at zero, convolutions called as operations, loops, and a `tf.function` in a layer.

    Args:
        model: A Keras model. If it is not built yet, this builds it.
        x: A NumPy array or tensor, a tuple or dict of them if the model has several
            inputs (a tuple is never taken for inputs and labels), or batches as for
            `fit`: a `tf.data.Dataset` or a `keras.utils.PyDataset`.
        layers: Which layers to list, as in `SparsityTracker`: layers, paths, regular
            expressions that match a whole path, types, or, where no path matches, names
            of activations ("relu") or types ("conv2d"). None lists all layers that the
            model calls and whose activations are floating-point numbers with a batch
            and a feature dimension. Containers are not listed; the layers inside them
            are.
        where: Which side of the layers to measure, "input" or "output". None means the
            input of Sparseout layers and the output of all others.
        axis: The vectors that `hoyer` and `zeros` measure: -1 for the units (in a
            convolution the channels at each position), None for the whole map of a
            sample.
        batch_size: How many samples of an array run at once. If the model takes only
            one batch size, as with stateful RNNs, that one is used.
        steps: How many batches of a data set to take, None for all.
        verbose: 1 for a progress bar if there are more than 20 batches, 0 for none.

    Returns:
        A `SparsityTable`. Print it, put it at the end of a notebook cell, or use its
        `rows`, `macs_by_kind` and `to_dataframe()`.

    Raises:
        ValueError: if `x` is empty, endless, sparse or ragged; if it does not fit the
            model's inputs (their number, names, shapes, types or fixed batch size); if
            another argument has a value that is not allowed; or if a layer in `layers`
            can't be read or has a different number of units in another batch.
        RuntimeError: if the back end is not TensorFlow, or if TensorFlow is set to run
            functions eagerly.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((2,)),
    ...     keras.layers.Dense(2, "relu", kernel_initializer="identity", name="hidden"),
    ...     keras.layers.Dense(1, kernel_initializer="ones", name="head"),
    ... ])
    >>> print(activation_sparsity(model, np.array([[1.0, -1.0], [2.0, 3.0]])))
    layer   kind   shape  hoyer  zeros   dead   rms  needless_macs
    hidden  Dense  (2,)   0.533  0.250  0.000  1.87          0.250
    head    Dense  (1,)     nan  0.000  0.000  3.61              -
    5.5 of 6 multiply-accumulates a sample are effective (92 %)
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`model` must be a Keras model. Received: model={model!r}. Wrap a layer: "
            "keras.Sequential([layer])."
        )
    tracing.check_can_trace("activation_sparsity")
    chosen, side = layer_selection.check_layers(layers), validation.check_where(where)
    metrics = get.check_metrics(_METRICS, validation.check_axis(axis))
    data = ProbeData(x, batch_size=batch_size, steps=steps)
    first = _tensors(data.first_for(model))
    tracing.build(model, first)
    reader = ModelReader(model, chosen, side, metrics)
    reader.prepare(first)
    bar = None
    for count, batch in enumerate(data, 1):
        if verbose and count > _BATCHES_WITHOUT_BAR:
            bar = bar or keras.utils.Progbar(None)
            bar.update(count)
        reader.add(_tensors(batch))
    if bar is not None:
        bar.update(count, finalize=True)
    return reader.table()


def _tensors(batch: Any) -> Any:
    return keras.tree.map_structure(as_tensor, batch)
