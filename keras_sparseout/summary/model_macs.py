"""Counts the multiply-accumulates (MACs) of a model, in its layers and elsewhere."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import keras

from keras_sparseout.backend import graph, operation_macs, tracing
from keras_sparseout.measure import hooks
from keras_sparseout.measure.layer_calls import LayerCall
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.summary import layer_macs
from keras_sparseout.utils.types import Tensor


class Products(NamedTuple):
    """The name of products that are counted together.

    Attributes:
        layer: Name of the layer that they belong to.
        kind: Class of that layer.
        part: A call of the layer and a stage of it, or an operation of the graph.
        factor: "" if a zero in any factor makes a product needless. The products of two
            activations are counted again for each factor by itself: then this is its
            number.
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
        macs: Dict of `Macs` by `Products`.
        inputs: Dict by `Products` of the activations that are multiplied, unless these
            are states of an RNN or between two stages of a layer.
        outputs: Names of the tensors that counted operations outside of layers return.
        mismatches: Dict by `Products`, for products of RNNs with their states. The
            count is right only if this number is 0.
        uncounted: Dict of what is not counted, in words, by name of the layer.
    """

    def __init__(self, model: keras.Model, layers: Mapping[str, WatchedLayer]) -> None:
        self.model = model
        self.layers = layers
        self.macs: dict[Products, operation_macs.Macs] = {}
        self.inputs: dict[Products, Tensor] = {}
        self.outputs: set[str] = set()
        self.mismatches: dict[Products, Tensor] = {}
        self.uncounted: dict[str, str] = {}
        self._operations_of_layers: set[str] = set()
        self._scopes: dict[str, str] = {}

    def noting_scopes(self) -> AbstractContextManager[None]:
        """Notes in which scopes the layers are called in this context."""
        graph_now = tracing.current_graph()

        def noted(name, call, /, *args, **kwargs):
            # Keras opens a scope for each call of a layer. Its name does not tell the
            # layer: a second one of "dense" is "dense_1", which may be a layer too.
            # Where a layer calls a part without a scope, the operations are its own.
            if tracing.current_graph() is graph_now:
                self._scopes.setdefault(tracing.current_scope(), name)
            return call(*args, **kwargs)

        return hooks.Overrides(
            [
                (w.layer, "call", functools.partial(noted, name))
                for name, w in self.layers.items()
            ]
        )

    def count_layer(
        self, name: str, calls: Iterable[tuple[LayerCall, LayerCall]]
    ) -> None:
        """Counts the products of a layer.

        Args:
            name: Name of the layer.
            calls: What was read of each of its calls at its input and its output.
        """
        layer = self.layers[name].layer
        kind = type(layer).__name__
        for number, (before, behind) in enumerate(calls):
            x, start, end = before.x, before.tensor, behind.tensor
            products = Products(name, kind, f"input of call {number}")
            self.macs[products] = layer_macs.count(layer, x)
            self.inputs[products] = x
            pointwise = layer_macs.count_pointwise(layer, start, end)
            if pointwise is not None:
                second = products._replace(part=f"pointwise of call {number}")
                self.macs[second] = pointwise
            if layer_macs.is_countable_rnn(layer):
                states = layer_macs.count_states(layer, x, before.mask, behind.x)
                if states is None:
                    self._leave_out(name, "products with the states")
                else:
                    second = products._replace(part=f"states of call {number}")
                    self.macs[second], self.mismatches[second] = states
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
                products = Products(name, kind, operation.name)
                self.macs[products], factors = operation_macs.count(operation, active)
                for place, (x, macs) in enumerate(factors):
                    factor = products._replace(factor=f"{place}")
                    self.macs[factor] = macs
                    self.inputs[factor] = x
                self.outputs |= {tensor.name for tensor in operation.outputs}
            elif operation_macs.has_products(operation):
                self._leave_out(name, kind)

    def _leave_out(self, name: str, words: str) -> None:
        self.uncounted[name] = f"{name} ({words})"

    def _owner(self, operation: str) -> tuple[str, str]:
        """Returns the name and the class of the layer that an operation belongs to."""
        scopes = operation.split("/")[:-1]
        for depth in range(len(scopes), 0, -1):
            name = self._scopes.get("/".join(scopes[:depth]))
            if name is not None:
                return name, type(self.layers[name].layer).__name__
        return self.model.name, type(self.model).__name__
