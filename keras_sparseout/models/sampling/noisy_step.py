"""One pass of a model in which the noise layers train and all else is in inference."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_sparseout.backend import tensors, tracing
from keras_sparseout.layers import call_context, nested_layers
from keras_sparseout.layers.per_sequence_noise import PerSequenceNoise, is_dropout_cell
from keras_sparseout.measure import layer_selection
from keras_sparseout.measure.hooks import Around, Overrides
from keras_sparseout.measure.layer_selection import LayerChoice
from keras_sparseout.models.sampling import noise_layers
from keras_sparseout.models.sampling.own_seeds import OwnSeeds, SeedStates
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Tensor

# Where a cell of this package draws, before the loop over the timesteps.
_DRAW = "get_recurrent_dropout_mask"

# The id of a layer, and the name of its method.
_Key: TypeAlias = tuple[int, str]
# Layers, the names of their methods, and what is put around those.
_Overridden: TypeAlias = list[tuple[keras.layers.Layer, str, Around]]
# The number of the last call of each method.
_Calls: TypeAlias = dict[_Key, int]


class NoisyStep:
    """Calls a model with its noise layers in training and the others in inference.

    The model is traced twice, and its layers are changed for that time alone. The first
    trace is of a training step, and never runs. It tells which calls of noise layers
    get `training=True`, and in which order the seed generators are drawn from. The
    second trace is of inference. In it those calls get `training=True`, and generators
    draw from states that are no variables of the model.

    Args:
        model: A built Keras model.
        layers: Which layers are to be noisy, None for all noise layers, see
            `noise_layers.find`.
    """

    def __init__(
        self, model: keras.Model, layers: Sequence[LayerChoice] | None
    ) -> None:
        self.model = model
        self.named = layers is not None
        _check_traceable(model)
        self.noisy, self.quiet = noise_layers.find(model, layers)
        self._states = SeedStates(model)
        # What each noise layer got for `training`, call by call.
        self._training: dict[_Key, list[bool]] = {}
        self._function = tracing.graph_function
        self._step: tracing.GraphFunction = None

    def prepare(self, batch: Any) -> None:
        """Traces the model for batches like `batch`, of any size if it takes them."""
        inputs = getattr(self.model, "inputs", None) or []
        any_size = all(i.shape[0] is None and not i.ragged for i in inputs)
        if any_size and not any(map(tensors.is_ragged, keras.tree.flatten(batch))):
            try:
                self._trace_all(batch, tracing.trace_for_any_size)
                return
            except Exception:
                # A layer of the user's may need to know the size. If that is not why,
                # the error comes again.
                self._function = tracing.traced_per_shape
        self._trace_all(batch, tracing.traced)

    def number_of_seeds(self) -> int:
        """Returns how many seed generators the model draws from."""
        return len(self._states)

    def at(self, batch: Any) -> Callable[[np.ndarray], Any]:
        """Returns the function of the seeds that calls the model on `batch`.

        The seeds are a row of two integers for each generator.
        """

        def call(seeds):
            return run((batch, keras.ops.convert_to_tensor(seeds)))

        run = tracing.traced(self._step, self._arguments(batch))
        return call

    def _arguments(self, batch: Any) -> tuple[Any, Tensor]:
        seeds = np.zeros((len(self._states), 2), "int64")
        return batch, keras.ops.convert_to_tensor(seeds)

    def _trace_all(self, batch: Any, trace: Callable[..., Any]) -> None:
        trace(self._function(self._in_training), self._arguments(batch))
        self._check_noise()
        traced = -1
        # A generator that only inference draws from is found in the second trace.
        while traced != len(self._states):
            traced = len(self._states)
            self._step = self._function(self._in_inference)
            trace(self._step, self._arguments(batch))

    def _in_training(self, arguments: tuple[Any, Tensor]) -> Any:
        self._training.clear()
        self._states.forget_order()
        return self._call(arguments, True, self._overrides(self._note, self._note_draw))

    def _in_inference(self, arguments: tuple[Any, Tensor]) -> Any:
        self._states.assign(arguments[1])
        calls: _Calls = {}
        force = functools.partial(self._force, calls)
        overrides = self._overrides(force, functools.partial(self._force_draw, calls))
        overrides += [
            (layer, "call", functools.partial(_call_with, layer, False))
            for layer in self.quiet
        ]
        outputs = self._call(arguments, False, overrides)
        for output in keras.tree.flatten(outputs):
            _check_output(output)
        return outputs

    def _overrides(self, on_call: Around, on_draw: Around) -> _Overridden:
        layers = [w.layer for w in self.noisy]
        of_calls: _Overridden = [
            (each, "call", functools.partial(on_call, each)) for each in layers
        ]
        return of_calls + [
            (each, _DRAW, functools.partial(on_draw, each))
            for each in layers
            if isinstance(each, PerSequenceNoise)
        ]

    def _call(
        self,
        arguments: tuple[Any, Tensor],
        training: bool,
        overrides: _Overridden,
    ) -> Any:
        try:
            with OwnSeeds(self._states), Overrides(overrides):
                return self.model(arguments[0], training=training)
        except BaseException:
            for w in layer_selection.all_layers(self.model):
                if is_dropout_cell(w.layer):
                    # Otherwise it would keep the masks of this graph.
                    w.layer.reset_dropout_mask()
                    w.layer.reset_recurrent_dropout_mask()
            raise

    def _note(
        self, layer: keras.layers.Layer, call: Around, /, *args: Any, **kwargs: Any
    ) -> Any:
        training = noise_layers.training_in(layer, args, kwargs)
        self._training.setdefault((id(layer), "call"), []).append(training)
        return call(*args, **kwargs)

    def _note_draw(
        self, layer: keras.layers.Layer, draw: Around, state: Tensor
    ) -> None:
        training = call_context.is_training()
        self._training.setdefault((id(layer), _DRAW), []).append(training)
        draw(state)

    def _force(
        self, calls: _Calls, layer: keras.layers.Layer, /, *args: Any, **kwargs: Any
    ) -> Any:
        training = self._next(calls, (id(layer), "call"))
        return _call_with(layer, training, *args, **kwargs)

    def _force_draw(
        self, calls: _Calls, layer: keras.layers.Layer, draw: Around, state: Tensor
    ) -> None:
        training = self._next(calls, (id(layer), _DRAW))
        before = call_context.is_training()
        call_context.set_training(training)
        try:
            draw(state)
        finally:
            call_context.set_training(before)

    def _next(self, calls: _Calls, key: _Key) -> bool:
        """Returns the `training` of the next call of a layer's method."""
        if self.named:
            return True
        noted = self._training.get(key, [False])
        calls[key] = calls.get(key, -1) + 1
        return noted[min(calls[key], len(noted) - 1)]

    def _check_noise(self) -> None:
        """Raises unless a training step of the model calls a layer that adds noise."""
        calls = [self._training.get((id(w.layer), "call"), []) for w in self.noisy]
        names = [w.name for w in self.noisy]
        if self.named:
            # An RNN on a fast path does not call its cell.
            if not any(calls):
                raise ValueError(
                    "`layers` must be layers that the model calls. Received: "
                    f"layers={names[:8]}, which it does not call. Name others."
                )
        elif not any(map(any, calls)):
            raise ValueError(
                "`model` must call a noise layer with training=True when it trains. "
                f"Received: model={self.model.name!r}, in which no training step adds "
                f"noise: it does not call {validation.some_of(names)}, or with "
                "training=False. To make them noisy all the same, name them: "
                "layers=[...]."
            )


def _call_with(
    layer: keras.layers.Layer,
    training: bool,
    call: Around,
    /,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Calls a layer's `call` with another `training`.

    What Keras would tell the next layers stays as it is.
    """
    args, kwargs = noise_layers.with_training(layer, training, args, kwargs)
    before = call_context.is_training()
    try:
        return call(*args, **kwargs)
    finally:
        call_context.set_training(before)


def _check_traceable(model: keras.Model) -> None:
    nested_layers.check_traceable(
        [model, *(w.layer for w in layer_selection.all_layers(model))],
        lambda layer: layer.non_trainable_variables,
        "model",
        "its noise or its statistics",
    )


def _check_output(output: Any) -> None:
    if tensors.is_ragged(output) or tensors.is_sparse(output):
        is_right = False
    else:
        dtype = getattr(getattr(output, "dtype", None), "name", "string")
        is_number = dtype != "string" and "complex" not in dtype
        is_right = is_number and output.shape.rank != 0
    if not is_right:
        raise ValueError(
            "`model` must return dense tensors of real numbers, with values for each "
            f"sample. Received: model with the output {output!r}. Make a model of the "
            "outputs that have a mean."
        )
