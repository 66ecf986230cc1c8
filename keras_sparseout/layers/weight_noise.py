"""Layers that call another layer with noise on its weights."""

import contextlib
import inspect
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_sparseout.layers import call_context, nested_layers, weight_lookup
from keras_sparseout.layers.per_sequence_noise import (
    PerSequenceNoise,
    bidirectional_remedy,
    check_cell,
    check_not_bidirectional,
    is_cell,
)
from keras_sparseout.layers.weight_lookup import Weight
from keras_sparseout.layers.weight_overlay import Overlay
from keras_sparseout.layers.wrapped_call import WrappedCall, WrapperOfCalls
from keras_sparseout.ops import masks
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Tensor


class WeightNoise(PerSequenceNoise, WrapperOfCalls):
    """A layer that calls the layer it wraps on perturbed weights in training.

    A subclass overrides `perturb_weight`. Only the optimizer changes the weights
    themselves: their gradients come back through the perturbed ones. What the wrapped
    layer updates in a call (moving statistics, recurrent states, seeds) is updated.

    Args:
        knobs: The first values of the knobs, by name.
        adjustable: Whether the knobs are variables.
        layer: The layer to wrap.
        weights: Names of the weights to perturb, or None, see
            `weight_lookup.find_weights`.
        seed: Integer, or None for a random one.
        **kwargs: `name`, `trainable`, `activity_regularizer`, as for every Keras layer.
    """

    def __init__(
        self,
        knobs: Mapping[str, float],
        adjustable: bool,
        layer: keras.layers.Layer,
        weights: str | Sequence[str] | None,
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        _check_layer(layer, name)
        check_not_bidirectional(kwargs, name, layer)
        validation.check_keywords(name, kwargs, type(self))
        if "dtype" in kwargs:
            raise ValueError(
                f"`dtype` of {name} comes from the layer that it wraps. Received: "
                f"dtype={kwargs['dtype']!r}. Give it to that layer."
            )
        # The wrapped layer casts the inputs itself.
        dtype = _unquantized(layer.dtype_policy)
        kwargs = {**kwargs, "dtype": dtype, "autocast": False}
        super().__init__(knobs, adjustable, seed, layer=layer, **kwargs)
        self._weight_names = weight_lookup.check_names(weights)
        self._is_cell = is_cell(layer)
        # Whether the wrapped layer has all its weights, and they are checked.
        self._is_checked = False
        self._has_warned = False
        if not self.trainable:
            layer.trainable = False
        if layer.built:
            self._check_weights()

    def wrapped(self) -> keras.layers.Layer:
        """Returns the layer whose weights are perturbed."""
        return self.layer

    @property
    def input_spec(self) -> Any:
        """The input spec of the wrapped layer."""
        return self.layer.input_spec

    # Some layers, such as SpectralNormalization, look for these attributes. Where the
    # wrapped layer has none, there is none here either.
    @property
    def kernel(self) -> keras.Variable:
        """The kernel of the wrapped layer."""
        return self.layer.kernel

    @property
    def embeddings(self) -> keras.Variable:
        """The embeddings of the wrapped layer."""
        return self.layer.embeddings

    @property
    def go_backwards(self) -> bool:
        """Raises for `Bidirectional`, which looks for it and takes no such layer."""
        raise AttributeError(bidirectional_remedy(type(self).__name__, self.layer))

    def build(self, input_shape: Any = None) -> None:
        """Builds the wrapped layer, if it is not built, and checks its weights."""
        layer = self.layer
        if not layer.built and _builds_from_one_shape(layer):
            layer.build(input_shape)
            layer.built = True
        self._check_weights()

    def build_from_config(self, config: dict[str, Any] | None) -> None:
        """Builds the wrapped layer from a config of `get_build_config`."""
        super().build_from_config(config)
        input_shape = (config or {}).get("input_shape")
        if self._is_checked or input_shape is None:
            return
        try:
            inputs = keras.KerasTensor((1, *input_shape[1:]))
            states = [self.get_initial_state(1)] if self._is_cell else []
            call_context.call_symbolically(self.layer, inputs, *states)
        except Exception:
            # It takes other inputs than this one: its first call makes its weights.
            return
        self._check_weights(called=True)

    def _check_weights(self, called=False):
        """Checks the weights; raises unless they are there and can be perturbed.

        A layer without a `build` may make weights only in its first call. Until then,
        missing weights are no error.
        """
        complete = called or weight_lookup.has_all_weights(self.layer)
        for weight in self._find_weights(incomplete=not complete):
            if not weight.is_quantized:
                self.check_weight(weight)
        self._is_checked = complete

    def _find_weights(self, incomplete=False):
        names = self._weight_names
        return weight_lookup.find_weights(self.layer, names, incomplete=incomplete)

    def check_weight(self, weight: Weight) -> None:
        """Raises unless `perturb_weight` can take `weight`."""
        validation.check_floating(weight.variable.dtype, weight.variable.name)
        inside = weight_lookup.layers_within(self.layer)
        if not self._is_rate_0():
            nested_layers.check_traceable(
                *(inside, lambda y: any(v is weight.variable for v in y.weights)),
                *("layer", "the weights that are perturbed"),
            )
        for inner in inside:
            normalizes = isinstance(inner, keras.layers.SpectralNormalization)
            if normalizes and inner.built and inner.kernel is weight.variable:
                raise _is_normalized(self, weight)

    def perturb_weight(self, weight: Weight, value: Tensor, seed: Tensor) -> Tensor:
        """Returns what replaces a weight in one call in training.

        Args:
            weight: The weight.
            value: Its value, in the dtype in which it is stored.
            seed: Integer tensor of shape (2,), from `masks.seed_pair`.

        Returns:
            Tensor of the shape and dtype of `value`.
        """
        raise NotImplementedError

    @WrappedCall
    def call(
        self, inputs: Any, *args: Any, training: bool = False, **kwargs: Any
    ) -> Any:
        """Calls the wrapped layer, in training on perturbed weights."""
        if not training or self._adds_no_noise(kwargs):
            outputs = self.layer(inputs, *args, training=training, **kwargs)
            if not self._is_checked:
                self._check_weights(called=True)
            return outputs
        if not self._is_checked:
            self._make_weights(inputs, *args, training=False, **kwargs)
        values = self.noise_of_sequence() if self._is_cell else self.draw()
        with Overlay(values) as overlay:
            outputs = self.layer(inputs, *args, training=training, **kwargs)
        for loss in overlay.losses:
            self.add_loss(loss)
        return outputs

    def _make_weights(self, *args, **kwargs):
        """Lets the wrapped layer make the weights that it makes only when called."""
        spec = call_context.call_symbolically(self.layer, *args, **kwargs)
        self._check_weights(called=True)
        return spec

    def _is_rate_0(self):
        return not self._adjustable and self._rate == 0

    def _adds_no_noise(self, kwargs):
        if self._is_rate_0():
            return True
        # AWD-LSTM drops rows that are looked up, not those that give the logits.
        reversible = isinstance(self.layer, keras.layers.ReversibleEmbedding)
        return reversible and kwargs.get("reverse", False)

    def draw(
        self, step_input: Tensor = None, states: Any = None
    ) -> list[tuple[keras.Variable, Tensor]]:
        """Returns each weight to perturb, with the value that replaces its own."""
        if self._is_rate_0():
            return []
        if not self._is_checked and self._is_cell:
            states = self.get_initial_state(ops.shape(step_input)[0])
            self._make_weights(step_input, states, training=False)
            # Otherwise the next cells would not train either.
            call_context.set_training(True)
        return call_context.without_autocast(self._perturb_weights)

    def _perturb_weights(self):
        found = self._find_weights()
        self._warn_about([weight.path for weight in found if weight.is_quantized])
        perturbed = []
        for weight in found:
            if not weight.is_quantized:
                # A cast reads the variable, which convert_to_tensor would not.
                value = ops.cast(weight.variable, weight.variable.dtype)
                seed = masks.seed_pair(self.seed_generator)
                noisy = self.perturb_weight(weight, value, seed)
                perturbed.append((weight.variable, noisy))
        return perturbed

    def _warn_about(self, quantized):
        if quantized and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{type(self).__name__} {self.name!r} puts no noise on "
                f"{', '.join(quantized)} of {self.layer.name!r}, quantized to "
                "integers. Train before `quantize`.",
                stacklevel=2,
            )

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Returns the mask of the wrapped layer's outputs, None if it has none."""
        if not self.layer.supports_masking:
            return None
        return self.layer.compute_mask(inputs, previous_mask)

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the output shape of the wrapped layer."""
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_output_spec(
        self, *args: Any, training: bool | None = None, **kwargs: Any
    ) -> Any:
        """Returns `KerasTensor`s like the outputs of the wrapped layer."""
        args, kwargs = self._with_input_first(args, kwargs)
        if self._is_checked:
            return self.layer.compute_output_spec(*args, **kwargs)
        # Only a call makes its weights.
        return self._make_weights(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments; under "layer" the serialized wrapped layer."""
        with _shared_configs() as configs:
            if id(self) not in configs:
                configs[id(self)] = self._make_config()
            return {**configs[id(self)]}

    def _make_config(self):
        config = super().get_config()
        del config["dtype"]
        # Serialized again: where a file has a layer twice, Keras marks the first dict.
        # In another wrapper that dict was copied before, and the mark would be lost.
        layer = keras.saving.serialize_keras_object(self.layer)
        if _builds_by_default(self.layer):
            # Keras would take the layer as built, while its children are not.
            layer.pop("build_config", None)
        return {**config, "layer": layer, "weights": self._weight_names}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "WeightNoise":
        """Rebuilds the layer, and the layer that it wraps, from a config."""
        # A copy: Keras takes the wrapped layer out of the dict.
        return super().from_config({**config}, custom_objects)


_in_this_thread = threading.local()


@contextlib.contextmanager
def _shared_configs() -> Iterator[dict[int, dict[str, Any]]]:
    """Configs by the id of their layer, for as long as the outermost use lasts.

    A config serializes the wrapped layer twice. If the two did not share configs, the
    innermost of n wrappers would be serialized 2^n times.
    """
    is_outermost = not hasattr(_in_this_thread, "configs")
    if is_outermost:
        _in_this_thread.configs = {}
    try:
        yield _in_this_thread.configs
    finally:
        if is_outermost:
            del _in_this_thread.configs


def _unquantized(policy: Any) -> Any:
    """The dtype policy before quantization, which only some layers can have."""
    if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
        policy = policy.default_policy
    if policy.quantization_mode is None:
        return policy
    return policy.get_config()["source_name"]


def _check_layer(layer: Any, name: str) -> None:
    if not isinstance(layer, keras.layers.Layer):
        remedy = f"Give for example {name}(keras.layers.Dense(64), 0.5)."
        if isinstance(layer, type) and issubclass(layer, keras.layers.Layer):
            remedy = f"Make one first: {name}({layer.__name__}(...), 0.5)."
        raise ValueError(
            "`layer` must be a keras.layers.Layer, whose weights are perturbed. "
            f"Received: layer={layer!r}. {remedy}"
        )
    if is_cell(layer):
        check_cell(layer, name, "layer")


def _is_normalized(wrapper: WeightNoise, weight: Weight) -> ValueError:
    name, owner = type(wrapper).__name__, type(weight.owner).__name__
    return ValueError(
        "`weights` must be weights that the layer does not assign when it is called, "
        "as keras.layers.SpectralNormalization does: the layer would store the "
        f"noisy value as its weight. Received: weights with {weight.path} of "
        f"{wrapper.layer.name!r}. Put {name} inside: "
        f"SpectralNormalization({name}({owner}(...), ...))."
    )


def _builds_from_one_shape(layer: keras.layers.Layer) -> bool:
    """Whether a layer makes its weights in a `build` that takes one input's shape.

    Others, such as attention, take several shapes, and this wrapper knows only one.
    """
    if not weight_lookup.has_build(layer):
        return False
    parameters = inspect.signature(layer.build).parameters.values()
    return sum(p.default is p.empty for p in parameters) < 2


def _builds_by_default(layer: keras.layers.Layer) -> bool:
    base = keras.layers.Layer
    builds = (type(layer).build, type(layer).build_from_config)
    return builds == (base.build, base.build_from_config)
