"""The multiply-accumulates of a whole model, in its layers and elsewhere."""

import functools
import re

import keras

from keras_sparseout.summary import macs, products


class ModelMacs:
    """Counts the products of a model while it is traced, and names what it can't count.

    A key is ("macs", name, kind, index), of the layer that has the products.

    Args:
        model: A Keras model.
        found: Dict of `WatchedLayer` by name, all of the model's layers.

    Attributes:
        sums: Dict of [needless, all] by key, float64 tensors. Under ("factor", ...)
            that of one factor where both are activations, and under ("changed", ...)
            what should be 0 for the sums of the same key to hold.
        starts: Dict of the tensor whose zeros count, by key of `sums`.
        barriers: References to the tensors that products give outside of layers.
        uncounted: Dict of what is not counted, in words, by name.
    """

    def __init__(self, model, found):
        self.model = model
        self.found = found
        self.sums, self.starts, self.uncounted = {}, {}, {}
        self.barriers = set()
        self._known = set()

    def count_layer(self, name, calls):
        """Counts the products of a layer.

        Args:
            name: Its name among `found`.
            calls: List of (input, mask, output) of its calls.
        """
        layer = self.found[name].layer
        kind = type(layer).__name__
        for number, (x, mask, y) in enumerate(calls):
            key = ("macs", name, kind, 2 * number)
            second = ("macs", name, kind, 2 * number + 1)
            self.sums[key] = macs.count(layer, x)
            self.starts[key] = x
            start, end = (original(layer, tensor) for tensor in (x, y))
            pointwise = macs.count_pointwise(layer, start, end)
            if pointwise is not None:
                self.sums[second] = pointwise
            if macs.is_recurrent(layer):
                states = macs.count_states(layer, x, mask, y)
                if states is None:
                    self._name(name, "products with the states")
                else:
                    self.sums[second], others = states
                    self.sums["changed", *second[1:]] = [others]
            between = macs.behind(end, {start.ref()}) - {start.ref()}
            self._known |= {tensor.deref().op.name for tensor in between}

    def count_elsewhere(self, inputs, outputs):
        """Counts the products that `outputs` need and that no layer above has.

        Args:
            inputs: List of the tensors that the model was called with.
            outputs: List of those that it returned.
        """
        if not outputs:
            return
        graph = outputs[0].graph
        active = products.depending(graph, inputs)
        library = functools.cache(
            lambda: {f.signature.name: f for f in graph.as_graph_def().library.function}
        )
        for op in products.needed(outputs).values():
            if op.name in self._known or op.name not in active:
                continue
            name, kind = self._owner(op)
            if products.is_countable(op):
                key = ("macs", name, kind, op.name)
                self.sums[key], factors = products.count(op, active)
                for place, (x, sums) in enumerate(factors):
                    factor = ("factor", name, kind, f"{op.name}:{place}")
                    self.sums[factor] = sums
                    self.starts[factor] = x
                self.barriers |= {tensor.ref() for tensor in op.outputs}
            elif products.has_products(op, library):
                self._name(name, kind)

    def _name(self, name, words):
        self.uncounted[name] = f"{name} ({words})"

    def _owner(self, op):
        """Returns the name and the kind of the layer that an operation belongs to."""
        # Keras opens a scope for each layer that it calls, numbered where it has to.
        scopes = op.name.split("/")[:-1]
        depth, owner = 0, None
        for name, watched in self.found.items():
            path = [*name.split("/")[:-1], watched.layer.name]
            place = _last_place(path[-1], scopes)
            matching = sum(_last_place(part, scopes) > 0 for part in path)
            if place and (place, matching) > (depth, 0 if owner is None else owner[2]):
                depth, owner = place, (name, type(watched.layer).__name__, matching)
        if owner is None:
            return self.model.name, type(self.model).__name__
        return owner[:2]


def original(layer, x):
    """Returns the layer's own tensor, of which `Hooks` moved the channels last."""
    first = getattr(layer, "data_format", None) == "channels_first"
    return x.op.inputs[0] if first and len(x.shape) > 2 else x


def tensors(structure):
    """Returns the tensors of a structure that have an operation in a graph."""
    return [x for x in keras.tree.flatten(structure) if hasattr(x, "op")]


def _last_place(name, scopes):
    """Returns the number of the last of `scopes` that is that of a layer, 0 if none."""
    pattern = re.compile(re.escape(name) + r"(_\d+)*")
    places = [i for i, scope in enumerate(scopes, 1) if pattern.fullmatch(scope)]
    return max(places, default=0)
