"""`sparsify`: thresholds for a trained model, found on data, without training."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import keras

from keras_sparseout.backend import tracing
from keras_sparseout.measure.layer_selection import LayerChoice
from keras_sparseout.measure.probe_data import ProbeData, as_tensor
from keras_sparseout.models.thresholds import arguments, macs_budget
from keras_sparseout.models.thresholds.places import choose as choose_places
from keras_sparseout.models.thresholds.sparsification import Sparsification
from keras_sparseout.models.thresholds.sparsify_table import SparsifyTable
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Data, Tensor

_BATCHES_WITHOUT_BAR = 20


def sparsify(
    model: keras.Model,
    x: Data,
    target: float | Mapping[LayerChoice, float] | None = None,
    *,
    budget: float | None = None,
    y: Tensor | None = None,
    metrics: Any = None,
    layers: LayerChoice | Sequence[LayerChoice] | None = None,
    where: Literal["before", "after"] = "before",
    axis: Literal[-1] | None = None,
    centre: Literal["mode"] | None = None,
    batch_size: int = 256,
    steps: int | None = None,
    return_table: bool = False,
    verbose: int = 1,
) -> keras.Model | tuple[keras.Model, SparsifyTable]:
    """Makes the activations of a trained model sparse, without training.

    It puts a `TargetSparsity` in front of each Dense, EinsumDense and convolution, also
    of depthwise, separable and transposed ones, and finds the thresholds on data, as
    quantiles of |x|:

        y = x where |x| > t, else 0

    `target` asks for a share of zeros. `budget` asks for the share of the model's
    multiply-accumulates (MACs) that may remain, counted as `activation_sparsity` does:
    those with a zero input are needless. It spreads the zeros over the layers so that
    the outputs change least. For each layer alone the change is measured at a grid of
    levels; then, again and again, the layer goes down whose change rises least for a
    MAC. What has no threshold, such as attention, counts as it is.

    Each threshold is found with all thresholds before it in place, so that the zeros of
    the new model are on target. Padding does not count. Where more activations than
    asked are zero by nature, t is 0. Where many are equal, zeros stay below the target:
    never all of them are cut. The table says both.

    Layers that the data themselves feed, such as the first convolution, are left alone
    unless they are named: what they take is no activations. Products without weights,
    as where patches are cut out, leave data what they are. Layers inside others, such
    as the projections of MultiHeadAttention or a model in a TimeDistributed, are out of
    reach; the table lists them. A layer that is called several times has one threshold.

    The new model has copies of the weights, is compiled as the old one, and can be
    saved, exported, and trained further: then the thresholds go on following their
    targets. The old model stays as it is.

    Args:
        model: A functional or Sequential model, with models of these kinds inside. If
            it is not built yet, this builds it.
        x: Data like those that the model will meet, some hundred samples: a NumPy array
            or tensor, a tuple or dict of them if the model has several inputs, or
            batches as for `fit`: a `tf.data.Dataset` or a `keras.utils.PyDataset`.
        target: The share of zeros, >= 0 and < 1, or a dict of shares by layer: by path
            ("encoder/dense"), regular expression, type, or as `layers` takes them
            otherwise. Then only these layers have thresholds, and a path goes before an
            expression.
        budget: The share of the MACs that may remain, > 0 and <= 1, in place of
            `target`. The new model keeps within it on `x`, and is near it.
        y: Labels of the samples, if `x` has none. The table then has loss and metrics.
            Dicts of labels and metrics go by the names of the outputs of `model`.
        metrics: Metrics to use with labels, as for `compile`. None: what the model is
            compiled with; where Keras can't evaluate a copy that is compiled so, a line
            below the table says why, or with `y` an error. Figures for each class count
            as their mean.
        layers: Where to put thresholds, as in `activation_sparsity`: layers, paths,
            regular expressions, types, or names of activations or types.
        where: "before" or "after" these layers.
        axis: None for one threshold a layer, -1 for one for each unit. With thousands
            of units the zeros of one may be off by some hundredths, not those of all.
        centre: "mode" cuts around the mode c of the activations instead of 0. The next
            layer gets x - c, and its bias makes up for it, where it is exact: in Dense,
            EinsumDense with a bias for each output, and convolutions without padding.
            Elsewhere, with `target`, what is cut becomes c, which is no zero, and with
            `budget` the threshold is around 0.
        batch_size: How many samples of arrays run at once.
        steps: How many batches of a data set to take, None for all.
        return_table: Whether to return the table as well.
        verbose: 1 to print the table, and a progress bar if there are more than 20
            batches to run; 0 for neither.

    Returns:
        The new model, or with `return_table` the model and a `SparsifyTable`. An output
        that a threshold comes after has the name of the threshold.

    Raises:
        ValueError: if not one of `target` and `budget` is given, or it is out of range;
            if a name is not in the model; if a layer has no floating-point activations
            there; if two expressions in `target` match one layer; if `budget` is below
            what thresholds can reach, or all outputs are strings; if `x` does not fit
            the model, has one sample, or leads to NaN or infinity; if the model is
            subclassed, quantized, or has weights that are not finite.
        RuntimeError: if the back end is not TensorFlow, or if TensorFlow is set to run
            functions eagerly.

    Sources: Liu et al. 2024, TEAL, arXiv 2408.14690, for quantiles of |x| and the
    greedy choice; Chua et al. 2024, SCAP, arXiv 2412.07174, for the mode; Kurtz et al.
    2020, Inducing and exploiting activation sparsity, for thresholds in place of ReLU.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8,)),
    ...     keras.layers.Dense(64, "gelu", name="hidden"),
    ...     keras.layers.Dense(1, name="head"),
    ... ])
    >>> x = np.random.default_rng(0).normal(size=(500, 8))
    >>> sparse = sparsify(model, x, target=0.75, verbose=0)
    >>> [layer.name for layer in sparse.layers]
    ['hidden', 'head_threshold', 'head']
    >>> inner = keras.Model(sparse.inputs, sparse.get_layer("head_threshold").output)
    >>> print(f"{np.mean(inner.predict(x, verbose=0) == 0):.2f}")
    0.75
    """
    options = arguments.check(target, budget, layers, where, axis, centre)
    arguments.check_can_be_sparsified(model)
    validation.check_bool("return_table", return_table)
    data = ProbeData(x, batch_size=batch_size, steps=steps)
    labelled = arguments.check_labels(x, y, metrics, model)
    batches = _Batches(data)
    first = keras.tree.map_structure(as_tensor, data.first_for(model))
    tracing.build(model, first)
    arguments.check_weights(model)
    places, notes = choose_places(
        model, batches, options.target, options.layers, options.where
    )
    progress = _Progress(verbose)
    work = Sparsification(model, places, options, batches, progress.tick)
    work.begin()
    before, after = {}, {}
    if labelled:
        # Labels and metrics that do not fit raise before the work.
        evaluated = _evaluated(x, y, data, first)
        before = work.first_scores(metrics, evaluated, are_asked=y is not None)
    if options.budget is None:
        work.reach_targets()
    else:
        wanted = macs_budget.wanted_samples(len(places))
        few = ProbeData(x, batch_size=min(batch_size, wanted), steps=steps)
        few.first_for(model)
        work.stay_within(options.budget, _first_samples(few, wanted))
    new = work.new_model()
    if before:
        after = work.scores(_evaluated(x, y, data, first))
    scores = {name: (before[name], value) for name, value in after.items()}
    table = work.table(notes, scores)
    progress.close()
    if verbose:
        print(table)
    return (new, table) if return_table else new


class _Batches:
    """The batches of data as tensors, which can be gone through again and again."""

    def __init__(self, data: ProbeData) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Any]:
        for batch in self.data:
            yield keras.tree.map_structure(as_tensor, batch)


class _Progress:
    """A progress bar, from some batches on.

    Args:
        verbose: 0 for no bar.
    """

    def __init__(self, verbose: int) -> None:
        self._verbose = verbose
        self._bar: Any = None
        self._count = 0

    def tick(self) -> None:
        """Counts a batch."""
        self._count += 1
        if self._verbose and self._count > _BATCHES_WITHOUT_BAR:
            self._bar = self._bar or keras.utils.Progbar(None)
            self._bar.update(self._count)

    def close(self) -> None:
        """Ends the line of the bar."""
        if self._bar is not None:
            self._bar.update(self._count, finalize=True)


def _first_samples(data: ProbeData, number: int) -> list[Any]:
    """Returns the first batches that together have at least `number` samples."""
    batches, samples = [], 0
    for batch in _Batches(data):
        batches.append(batch)
        samples += keras.tree.flatten(batch)[0].shape[0]
        if samples >= number:
            break
    return batches


def _evaluated(
    x: Data, y: Tensor | None, data: ProbeData, first: Any
) -> dict[str, Any]:
    """Returns the arguments with which `evaluate` sees the same samples.

    Args:
        x: What `sparsify` was called with.
        y: Labels, or None.
        data: The batches of `x`.
        first: The first of them: the model may take only batches of its size.
    """
    if y is None:
        return {"x": x, "steps": data.steps}
    size = keras.tree.flatten(first)[0].shape[0]
    end = None if data.steps is None else data.steps * size
    x, y = keras.tree.map_structure(lambda array: array[:end], (x, y))
    return {"x": x, "y": y, "batch_size": size}
