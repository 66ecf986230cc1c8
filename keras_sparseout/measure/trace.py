"""What the watched layers of a model are called with, in one step."""

import contextlib

import keras
import tensorflow as tf

from keras_sparseout.backend import tracing
from keras_sparseout.measure import hooks, layer_selection

# Why layers are left out.
UNREAD = "not called, or in a loop or tf.function"
OUTPUT = "the output of the model"
# What a model may still do with the output of its last layer.
_PASSING = ("Cast", "ExpandDims", "Identity", "Reshape", "Squeeze", "Transpose")


class Trace:
    """Collects what layers are called with, in one step of one thread.

    Args:
        model: The model that the layers are in.
        watched: The layers, from `watching.select`.

    Attributes:
        seen: List of (watched, x, mask), one for each call.
    """

    def __init__(self, model, watched):
        self.model = model
        self.watched = watched
        self.seen = []
        self._graph = None
        self._inner = set()
        self._outputs = []

    @contextlib.contextmanager
    def reading(self):
        """Reads the calls that are made in this context."""
        self._graph = tracing.current_graph()
        whole = layer_selection.Watched("", self.model, "outputs", False)
        with hooks.Hooks([*self.watched, whole], self._record):
            yield

    def _record(self, watched, x, mask):
        if watched.layer is self.model:
            self._outputs += keras.tree.flatten(x)
        # A tensor of another graph, that of a loop body, can't be brought here. An
        # RNN calls its cell once outside the loop too: one step is no figure.
        elif tracing.graph_of(x) is not self._graph:
            if self.model.built:  # Before, Keras calls it in another graph to build it.
                self._inner.add(watched.name)
        else:
            self.seen.append((watched, x, mask))

    def calls(self):
        """Returns how often each layer that could be read was called."""
        counts = {}
        for w, _, _ in self.seen:
            if w.name not in self._inner:
                counts[w.name] = counts.get(w.name, 0) + 1
        return counts

    def missed(self):
        """Returns the names of the layers that could not be read."""
        calls = self.calls()
        return [w.name for w in self.watched if w.name not in calls]

    def left_out(self):
        """Returns dict of reasons by name, of layers that count only if named."""
        reasons = dict.fromkeys(self.missed(), UNREAD)
        kept = {w.name for w in self.watched} - set(reasons)
        features = {
            w.name
            for w, x, _ in self.seen
            if hooks.rank_of(x) > 1 and x.dtype.is_floating
        }
        if kept & features:
            others = sorted(kept - features)
            reasons.update(dict.fromkeys(others, "no floating-point features"))
            kept &= features
        ends = self._ends()
        heads = {
            w.name
            for w, x, _ in self.seen
            if w.side == "output"
            and layer_selection.is_head(w.layer)
            and x.ref() in ends
        }
        if kept - heads:
            reasons.update(dict.fromkeys(heads, OUTPUT))
        return reasons

    def _ends(self):
        """Returns references to the tensors that the model's outputs are made of."""
        ends = set()
        for tensor in self._outputs:
            while tf.is_tensor(tensor):
                ends.add(tensor.ref())
                operation = getattr(tensor, "op", None)
                if operation is None or operation.type not in _PASSING:
                    break
                tensor = operation.inputs[0]
        return ends
