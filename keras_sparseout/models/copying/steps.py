"""What becomes of a layer, and of the calls of it."""

import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_sparseout.measure import call_arguments
from keras_sparseout.utils.types import Tensor


@dataclasses.dataclass(frozen=True)
class Change:
    """What becomes of a layer.

    Attributes:
        layer: The layer of the old model.
        replacement: The layer that takes its place. None: a copy of it.
        function: What takes its place as operations, a function of its input.
        may_be_masked: Whether masks that Keras has not noted may come in there.
        is_removed: Whether nothing takes its place: what goes in comes out, in the
            dtype in which the layer computes.
        keeps: The layer inside it whose copy takes its place.
        name: The name of that copy, None for that of the layer.
        before: A layer to call on its input.
        after: A layer to call on its output, the first one if it has several.
    """

    layer: keras.layers.Layer
    replacement: keras.layers.Layer | None = None
    function: Callable[[Tensor], Tensor] | None = None
    may_be_masked: bool = False
    is_removed: bool = False
    keeps: keras.layers.Layer | None = None
    name: str | None = None
    before: keras.layers.Layer | None = None
    after: keras.layers.Layer | None = None

    @property
    def is_gone(self) -> bool:
        """Whether there is no copy of the layer itself."""
        others = (self.replacement, self.function, self.keeps)
        return self.is_removed or any(other is not None for other in others)

    def inserted(self) -> list[keras.layers.Layer]:
        """Returns the layers before and after it."""
        return [each for each in (self.before, self.after) if each is not None]

    def lost(self) -> list[keras.Variable]:
        """Returns the variables of the layer that the new model does not have."""
        if not self.is_gone:
            return []
        kept = [] if self.keeps is None else self.keeps.variables
        return [v for v in self.layer.variables if all(v is not k for k in kept)]


class Step:
    """What a call of a layer becomes: the layers that are called in its place.

    Args:
        change: What becomes of the layer.

    Attributes:
        new: The layer that takes the place of the layer, None if there is none.
    """

    def __init__(self, change: Change) -> None:
        self.change = change
        self.new: keras.Operation | None = None
        self._with_masks: dict[tuple[int, bool], keras.layers.Layer] = {}
        if change.is_removed:
            # An Identity has no config with a policy in it.
            self._cast = keras.layers.Activation(
                "linear", name=change.layer.name, dtype=change.layer.dtype_policy
            )

    @property
    def has_inserted(self) -> bool:
        """Whether a layer is called before or after it."""
        return bool(self.change.inserted())

    def layers(self, dtype: str) -> list[keras.layers.Layer]:
        """Returns the layers in order, for a Sequential model.

        Args:
            dtype: The dtype of the input of the layer.
        """
        change, new = self.change, self.new
        if change.is_removed and dtype != change.layer.compute_dtype:
            new = self._cast
        found = (change.before, new, change.after)
        return [layer for layer in found if layer is not None]

    def as_layer(self) -> keras.layers.Layer:
        """Returns the layer that takes the place of the layer inside another one."""
        change = self.change
        if change.is_removed:
            return self._cast
        return self.new

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the layers, as the old layer was called."""
        change = self.change
        if change.before is not None:
            self.check_inputs(args, kwargs)
            args, kwargs = self._on_input(_dense, args, kwargs)
            args, kwargs = self._on_input(_caller(change.before), args, kwargs)
        if change.replacement is not None:
            args, kwargs = self._on_input(_dense, args, kwargs)
        mask = call_arguments.named(change.layer, "mask", args, kwargs)
        if change.is_gone:
            # What takes its place may have another name for its input.
            args, kwargs = call_arguments.first_by_place(change.layer, args, kwargs)
        if self.new is not None:
            outputs = self.new(*args, **kwargs)
        else:
            outputs = args[0]
            if change.function is not None:
                outputs = self._operations(change.function, outputs, mask)
            elif outputs.dtype != change.layer.compute_dtype:
                outputs = self._cast(outputs)
        if change.after is not None:
            outputs = self._on_output(_caller(change.after), outputs)
        return outputs

    def _operations(self, function, x, mask):
        """Calls a function on `x`, in a layer that passes a mask on if it has one."""
        rank = len(x.shape)
        is_masked = getattr(x, "_keras_mask", None) is not None
        if mask is None and not is_masked and not self.change.may_be_masked:
            return function(x)
        key = rank, mask is not None
        if key not in self._with_masks:
            self._with_masks[key] = self._passing_on(function, *key)
        layer = self._with_masks[key]
        with warnings.catch_warnings():
            # The model does pass it on.
            warnings.filterwarnings("ignore", ".*was passed an input with a mask")
            return layer(x) if mask is None else layer(function(x), mask=mask)

    def _passing_on(self, function, rank, is_given):
        """Returns a layer for inputs with masks, or for outputs with a given mask."""
        old, number = self.change.layer, len(self._with_masks)
        name = f"{old.name}_{number}" if number else old.name
        x = keras.Input(batch_shape=(None,) * rank, dtype=old.compute_dtype)
        activation = functools.partial(
            keras.layers.Activation, name=name, dtype=old.dtype_policy
        )
        if is_given:
            # It takes the mask for its input, which the layer inside passes on.
            return keras.Model(x, activation("linear")(x), name=name)
        return activation(keras.Model(x, function(x)))

    def check_inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raises unless a layer can be called before this one."""
        first = call_arguments.first(self.change.layer, args, kwargs)
        if not isinstance(self.change.layer, _WITH_STATES):
            first = [*args, *kwargs.values()]
        # Masks are not floating-point.
        floating = [x for x in keras.tree.flatten(first) if _is_floating(x)]
        if len(floating) != 1:
            found = "no floating-point tensor"
            remedy = "Name layers further on in the model."
            if floating:
                found = f"{len(floating)} tensors"
                remedy = 'Name the layers that return these, with where="after".'
            raise ValueError(
                '`layers` must take one floating-point tensor with where="before". '
                f"Received: layers with {self.change.layer.name!r}, which takes "
                f"{found}. {remedy}"
            )

    def check_outputs(self, outputs: Any) -> int:
        """Returns which output a layer can be called on; raises if there is none."""
        flat = keras.tree.flatten(outputs)
        for number, output in enumerate(flat):
            if keras.backend.is_float_dtype(output.dtype):
                return number
        dtypes = ", ".join(str(output.dtype) for output in flat)
        raise ValueError(
            "`layers` must return a floating-point tensor. Received: layers with "
            f"{self.change.layer.name!r}, which returns {dtypes}. Name layers further "
            "on in the model."
        )

    def _on_input(self, layer, args, kwargs):
        """Returns the arguments, with `layer` called on the floating-point input."""
        function = functools.partial(_on_floating, layer)
        return call_arguments.with_first(self.change.layer, function, args, kwargs)

    def _on_output(self, layer, outputs):
        number = self.check_outputs(outputs)
        flat = keras.tree.flatten(outputs)
        flat[number] = layer(_dense(flat[number]))
        return keras.tree.pack_sequence_as(outputs, flat)


# Their initial states go in beside the sequence.
_WITH_STATES = (keras.layers.RNN, keras.layers.Bidirectional)


def layers_in_sequence(
    steps: Sequence[Step], x: Tensor | None
) -> list[keras.layers.Layer]:
    """Returns the layers of a Sequential model, in order.

    Args:
        steps: Those of the model, in order.
        x: The symbolic input of the model, None if it is not known.

    Raises:
        ValueError: if a layer can't be called where it stands.
    """
    layers = []
    dtype = keras.config.floatx() if x is None else x.dtype
    for step in steps:
        layers += step.layers(dtype)
        dtype = step.change.layer.compute_dtype
    if x is not None:
        last = [number for number, step in enumerate(steps) if step.has_inserted]
        _check_sequence(steps[: max(last, default=-1) + 1], x)
    return layers


def _check_sequence(steps, x):
    """Raises unless layers can be called where they stand in a Sequential model."""
    for step in steps:
        if step.change.before is not None:
            step.check_inputs((x,), {})
        x = step.change.layer.compute_output_spec(x)
        if step.change.after is not None:
            step.check_outputs(x)
            if keras.tree.is_nested(x):
                raise ValueError(
                    "`layers` must return one tensor in a Sequential model. Received: "
                    f"layers with {step.change.layer.name!r}, which returns several. "
                    "Make the model with the functional API."
                )


def _caller(layer):
    """Returns a function that calls `layer` on a tensor, with the mask at that time.

    Otherwise Keras would fix the mask that the symbolic tensor has, also where a layer
    before, such as MultiHeadAttention, takes masks away when the model is called.
    """
    if "mask" not in inspect.signature(layer.call).parameters:
        return layer
    return lambda x: layer(x, mask=None)


def _dense(x):
    """Returns `x` as a dense tensor: Keras takes x * 2.0 for sparse, whatever x is."""
    is_marked = isinstance(x, keras.KerasTensor) and x.sparse
    return keras.ops.convert_to_tensor(x, sparse=False) if is_marked else x


def _on_floating(layer, structure):
    return keras.tree.map_structure(
        lambda x: layer(x) if _is_floating(x) else x, structure
    )


def _is_floating(x):
    is_tensor = isinstance(x, keras.KerasTensor) or keras.ops.is_tensor(x)
    return is_tensor and keras.backend.is_float_dtype(x.dtype)
