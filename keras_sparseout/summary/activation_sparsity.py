"""activation_sparsity: how sparse the activations of a whole model are, in one call."""

import keras
import tensorflow as tf

from keras_sparseout.backend import tracing
from keras_sparseout.measure import layer_selection
from keras_sparseout.measure.probe_data import ProbeData, as_tensor
from keras_sparseout.metrics import get
from keras_sparseout.summary.model_reader import ModelReader
from keras_sparseout.utils import validation

_METRICS = ("hoyer", "zero_fraction", "dead_units", "rms")
_BATCHES_WITHOUT_BAR = 20


def activation_sparsity(
    model, x, *, layers=None, where=None, axis=-1, batch_size=256, steps=None, verbose=1
):
    """Measures how sparse the activations of each layer of a model are, on data `x`.

    It runs the model as at inference and changes nothing: neither weights nor seeds
    nor recurrent states. The columns of the table:

    - `layer`: its path, "encoder/dense" for a nested one; `kind`: its class;
    - `shape`: of one sample's activations, channels last; None where it varies;
    - `hoyer`, `zeros`: the means over the samples of `metrics.hoyer` and
      `metrics.zero_fraction`, by the rules of `metrics.Hoyer`;
    - `dead`, `rms`: `metrics.dead_units` and `metrics.rms` of all samples;
    - `needless_macs`: the share of the multiply-accumulates (MACs) of the next layers
      whose input is zero, None if there is no such layer.

    A convolution does not use all elements of its input alike: at borders, and with
    strides, an element takes part in fewer products. With `uses_i` the number of
    products w_j * x_i that a layer forms with element i of a sample, padding left out,

        macs = sum_i uses_i
        needless_macs = sum_i [x_i = 0] * uses_i / macs
        effective MACs = (1 - needless_macs) * macs

    as means over the samples. Of two activations, as in attention, the product
    x_i * y_j is needless if either is zero. It is what hardware or code that skips
    zeros could save, not what TensorFlow does.

    The next layers are those that the activations reach without other products in
    between: through activations, normalization, pooling, sums and custom layers. Their
    own inputs are looked at, so the linear layer and the ReLU after it have the same
    `needless_macs`. Of several next layers the MACs are added.

    Below the table stand the MACs of the whole model, and a sum for each class of
    layer. It counts Dense, EinsumDense, convolutions (both stages of separable ones),
    RNNs of LSTM, GRU, SimpleRNN and ConvLSTM cells with their states, and products of
    matrices and of `einsum` elsewhere in the model, as in attention and custom layers.
    It does not count products of single elements, such as those of normalization. A
    line of its own names what can't be counted: other RNN cells, states that do not
    begin at zero, convolutions as operations, loops, and a `tf.function` in a layer.

    Args:
        model: A Keras model. One that is not built is built by this.
        x: A numpy array or tensor, a tuple or dict of them for a model of several
            inputs (so without labels), a `tf.data.Dataset` or a
            `keras.utils.PyDataset` of batches as for `fit`.
        layers: Which layers to list, as in `SparsityTracker`: layers, paths, regular
            expressions that match a whole path, types, or, where no path matches, names
            of activations ("relu") or types ("conv2d"). None: all layers that the model
            calls, if their activations are floating-point numbers of samples and
            features. In place of models and layers that contain others, it lists those
            others.
        where: "input" or "output" of the layers. None: the input of Sparseout layers,
            the output of all others.
        axis: What the vectors of `hoyer` and `zeros` lie along: -1 for the units, in a
            convolution the channels at each position; None for a sample's whole map.
        batch_size: How many samples of arrays run at once. A model that takes one batch
            size only, as with stateful RNNs, gets batches of that size.
        steps: How many batches of a data set to take; None for all.
        verbose: 1 for a progress bar if there are more than 20 batches, 0 for none.

    Returns:
        A `SparsityTable`: to print, to end a cell of a notebook with, or as `rows`,
        `to_dataframe()` and `macs_by_kind`.

    Raises:
        ValueError: if `x` is empty, endless, sparse or ragged, does not fit the model
            (in number, names, shape or type of its inputs, or in their fixed batch
            size), an argument is none of the above, or a layer that `layers` names
            can't be read, or varies in its number of units from batch to batch.
        RuntimeError: with another back end than TensorFlow, or if it is set to run
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
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "activation_sparsity needs the TensorFlow back end, whose graph it reads. "
            f"Received: keras.backend.backend()={keras.backend.backend()!r}. Start "
            "Python with KERAS_BACKEND=tensorflow."
        )
    if tf.config.functions_run_eagerly():
        raise RuntimeError(
            "activation_sparsity needs the model's graph. Received: "
            "tf.config.functions_run_eagerly()=True. Call "
            "tf.config.run_functions_eagerly(False) before it."
        )
    layers, where = layer_selection.check_layers(layers), validation.check_where(where)
    metrics = get.check_metrics(_METRICS, validation.check_axis(axis))
    data = ProbeData(x, batch_size=batch_size, steps=steps)
    first = _tensors(data.first_for(model))
    tracing.build(model, first)
    reader = ModelReader(model, layers, where, metrics)
    inputs = getattr(model, "inputs", None) or []
    if all(t.shape[0] is None and not t.ragged for t in inputs):
        # So that a last batch of another size needs no other trace.
        reader.step.get_concrete_function(keras.tree.map_structure(_spec, first))
    bar = None
    for count, batch in enumerate(data, 1):
        if verbose and count > _BATCHES_WITHOUT_BAR:
            bar = bar or keras.utils.Progbar(None)
            bar.update(count)
        reader.add(_tensors(batch))
    if bar is not None:
        bar.update(count, finalize=True)
    return reader.table()


def _tensors(batch):
    return keras.tree.map_structure(as_tensor, batch)


def _spec(tensor):
    return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype)
