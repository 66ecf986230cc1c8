"""Counts the multiply-accumulates (MACs) of a model, in its layers and elsewhere."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import keras

from keras_sparseout.backend import graph, operation_macs
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.summary import layer_macs
from keras_sparseout.utils.types import Tensor


class Count(NamedTuple):
    """Names the products of a model that are counted together.

    Attributes:
        layer: Name of the layer that they belong to.
        kind: Class of that layer.
        part: A stage of a call of the layer, or the operation in the graph.
        factor: "" for all products of that part, which are needless if any of their
            factors is zero. Otherwise the name of one factor, the only one whose zeros
            count: a product of two activations has two of these besides.
    """

    layer: str
    kind: str
    part: str
    factor: str = ""


class ModelMacs:
    """Counts the products of a model while it is traced, and names what it can't count.

    Args:
        model: A Keras model.
        layers: Its layers, by name.

    Attributes:
        macs: Dict of `Macs` by `Count`.
        inputs: Dict by `Count` of the tensors whose zeros make products needless.
        outputs: Names of the tensors that products outside of known layers return.
        mismatches: Dict by `Count`, of RNNs' products with their states. They are
            counted right only if this number is 0 in all batches.
        uncounted: Dict of what is not counted, in words, by name of the layer.
    """

    def __init__(self, model: keras.Model, layers: Mapping[str, WatchedLayer]) -> None:
        self.model = model
        self.layers = layers
        self.macs: dict[Count, operation_macs.Macs] = {}
        self.inputs: dict[Count, Tensor] = {}
        self.outputs: set[str] = set()
        self.mismatches: dict[Count, Tensor] = {}
        self.uncounted: dict[str, str] = {}
        self._operations_of_layers: set[str] = set()

    def count_layer(
        self, name: str, calls: Iterable[tuple[Tensor, Tensor | None, Tensor]]
    ) -> None:
        """Counts the products of a layer.

        Args:
            name: Name of the layer.
            calls: (input, mask, output) of each of its calls, channels last.
        """
        layer = self.layers[name].layer
        kind = type(layer).__name__
        for number, (x, mask, y) in enumerate(calls):
            count = Count(name, kind, f"input of call {number}")
            self.macs[count] = layer_macs.count(layer, x)
            self.inputs[count] = x
            start, end = as_called(layer, x), as_called(layer, y)
            pointwise = layer_macs.count_pointwise(layer, start, end)
            if pointwise is not None:
                self.macs[count._replace(part=f"pointwise {number}")] = pointwise
            if layer_macs.is_countable_rnn(layer):
                states = layer_macs.count_states(layer, x, mask, y)
                if states is None:
                    self._leave_out(name, "products with the states")
                else:
                    count = count._replace(part=f"states of call {number}")
                    self.macs[count], self.mismatches[count] = states
            between = graph.operations_between(start, end)
            self._operations_of_layers |= {operation.name for operation in between}

    def count_operations(
        self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> None:
        """Counts the products that `outputs` need, apart from those of known layers.

        Args:
            inputs: The tensors that the model was called with.
            outputs: The tensors that it returned.
        """
        if not outputs:
            return
        active = graph.dependents(outputs[0].graph, inputs)
        for operation in graph.operations_behind(outputs):
            if operation.name in self._operations_of_layers:
                continue
            if operation.name not in active:
                continue
            name, kind = self._owner(operation.name)
            if operation_macs.is_countable(operation):
                count = Count(name, kind, operation.name)
                self.macs[count], factors = operation_macs.count(operation, active)
                for place, (x, macs) in enumerate(factors):
                    factor = count._replace(factor=f"{place}")
                    self.macs[factor] = macs
                    self.inputs[factor] = x
                self.outputs |= {tensor.name for tensor in operation.outputs}
            elif operation_macs.has_products(operation):
                self._leave_out(name, kind)

    def _leave_out(self, name: str, words: str) -> None:
        self.uncounted[name] = f"{name} ({words})"

    def _owner(self, operation: str) -> tuple[str, str]:
        """Returns the name and the class of the layer that an operation belongs to."""
        # Keras opens a scope for each layer that it calls. The innermost scope decides,
        # then how many layers of the path have a scope.
        scopes = operation.split("/")[:-1]
        owner, best = (self.model.name, type(self.model).__name__), (0, 0)
        for name, watched in self.layers.items():
            path = [*name.split("/")[:-1], watched.layer.name]
            depths = [_depth(part, scopes) for part in path]
            match = depths[-1], sum(depth > 0 for depth in depths)
            if depths[-1] and match > best:
                owner, best = (name, type(watched.layer).__name__), match
        return owner


def as_called(layer: keras.layers.Layer, x: Tensor) -> Tensor:
    """Returns the layer's own tensor for `x`, whose channels `Hooks` may have moved."""
    first = getattr(layer, "data_format", None) == "channels_first"
    return x.op.inputs[0] if first and len(x.shape) > 2 else x


def _depth(layer: str, scopes: Sequence[str]) -> int:
    """Returns which of `scopes` is the last one of a layer, from 1 on; 0 if none is."""
    # Keras numbers scopes of the same name.
    pattern = re.compile(re.escape(layer) + r"(_\d+)*")
    depths = [i for i, scope in enumerate(scopes, 1) if pattern.fullmatch(scope)]
    return max(depths, default=0)
