"""What the layers of a model are called with in one step, and which can't be read."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_sparseout.backend import tracing
from keras_sparseout.measure import call_arguments, hooks
from keras_sparseout.measure.layer_selection import has_output_activation
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.utils.types import Tensor

# Why layers are left out.
UNREAD = "not called, or in a loop or tf.function"
NO_FEATURES = "no floating-point features"
OUTPUT = "the output of the model"


class LayerCall(NamedTuple):
    """One call of a layer.

    Attributes:
        watched: The layer.
        x: The activations, with the units last.
        mask: Their mask of timesteps, or None.
        tensor: The activations as the layer has them.
    """

    watched: WatchedLayer
    x: Tensor
    mask: Tensor | None
    tensor: Tensor


class LayerCalls:
    """Collects the calls of layers in one step, in one thread.

    Args:
        model: The model that the layers are in.
        watched: The layers.

    Attributes:
        seen: List of `LayerCall`, in the order of the calls.
    """

    def __init__(self, model: keras.Model, watched: Sequence[WatchedLayer]) -> None:
        self.model = model
        self.watched = watched
        self.seen: list[LayerCall] = []
        self._graph: Any | None = None
        self._was_built = False
        self._variables = 0
        self._in_other_graphs: set[str] = set()
        self._outputs: list[Tensor] = []

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Reads the calls that are made in this context."""
        self._graph = tracing.current_graph()
        self._was_built = self.model.built
        self._variables = len(self.model.variables)
        wholes = [self.model]
        if not call_arguments.has_call(self.model):  # Its step calls the models in it.
            wholes = [m for m in self.model.layers if isinstance(m, keras.Model)]
        whole = [WatchedLayer("", model, "outputs", False) for model in wholes]
        with hooks.Hooks([*self.watched, *whole], self._record):
            yield

    def _record(self, watched: WatchedLayer, x: Any, mask: Tensor | None) -> None:
        if watched.side == "outputs":
            self._outputs += keras.tree.flatten(x)
        # A tensor from another graph, as the body of a loop has, can't be brought here.
        # Such a layer has no figures: an RNN also calls its cell once outside the loop,
        # and one step would stand for all.
        elif tracing.graph_of(x) is not self._graph:
            # To build a layer, Keras calls it in another graph before it calls it here.
            # The model may count as built then, if it has a `build` of its own.
            made = len(self.model.variables) != self._variables
            builds = made or not self._was_built
            if not builds or any(call.watched is watched for call in self.seen):
                self._in_other_graphs.add(watched.name)
        else:
            axis = watched.units_axis(hooks.rank_of(x), mask)
            units_last = x if axis == -1 else ops.moveaxis(x, axis, -1)
            self.seen.append(LayerCall(watched, units_last, mask, x))

    def calls(self) -> dict[str, int]:
        """Returns how often each layer that could be read was called, by name."""
        calls: dict[str, int] = {}
        for w, *_ in self.seen:
            if w.name not in self._in_other_graphs:
                calls[w.name] = calls.get(w.name, 0) + 1
        return calls

    def unread(self) -> list[str]:
        """Returns the names of the layers that could not be read."""
        calls = self.calls()
        return [w.name for w in self.watched if w.name not in calls]

    def left_out(self, *, inner: bool = False) -> dict[str, str]:
        """Returns the layers that count only if the user names them: reasons by name.

        Layers without features count if there are no others, and so does the output of
        the model.

        Args:
            inner: Whether the output of the model never counts, and with any
                activation. Otherwise that matters only for one such as softmax.
        """
        reasons = dict.fromkeys(self.unread(), UNREAD)
        kept = {w.name for w in self.watched} - set(reasons)
        with_features = {
            call.watched.name
            for call in self.seen
            if hooks.rank_of(call.x) > 1 and call.x.dtype.is_floating
        }
        if kept & with_features:
            reasons.update(dict.fromkeys(sorted(kept - with_features), NO_FEATURES))
            kept &= with_features
        outputs = self._outputs_of_the_model(any_activation=inner)
        if inner or kept - outputs:
            reasons.update(dict.fromkeys(outputs, OUTPUT))
        return reasons

    def _outputs_of_the_model(self, *, any_activation: bool) -> set[str]:
        """The names of layers whose outputs the model returns, say as probabilities."""
        returned = tracing.origins(self._outputs)
        return {
            call.watched.name
            for call in self.seen
            if call.watched.side == "output"
            and (any_activation or has_output_activation(call.watched.layer))
            and call.tensor.ref() in returned
        }
