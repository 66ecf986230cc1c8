"""Layers whose weights are perturbed while they are called, and nowhere else."""

import inspect
import threading
import warnings

import keras
import tensorflow as tf

from keras_sparseout.layers import weight_lookup
from keras_sparseout.layers.noisy_cell import (
    NoisyCell,
    check_cell,
    check_direction,
    in_training,
    is_cell,
    out_of_bidirectional,
)
from keras_sparseout.layers.weight_overlay import Overlay, calling
from keras_sparseout.ops import masks
from keras_sparseout.utils import validation


class WeightNoise(NoisyCell, keras.layers.Wrapper):
    """A layer that calls another one on perturbed weights in training.

    A subclass fills `noisy`. The weights themselves never change but by the optimizer,
    whose gradients come back through the perturbed ones; all that the wrapped layer
    updates as it is called (moving statistics, recurrent states, seeds) is updated.

    Args:
        knobs: Dict of the first values, floats, by name.
        adjustable: Whether they are variables.
        layer: The layer to wrap.
        weights: Names of the weights to perturb, or None, see `layer_weights.choose`.
        seed: Integer, or None for a random one.
        **kwargs: `name`, `trainable`, `activity_regularizer`, as for every Keras layer.
    """

    def __init__(self, knobs, adjustable, layer, weights, seed, **kwargs):
        name = type(self).__name__
        _check_layer(layer, name)
        check_direction(kwargs, name, layer)
        validation.check_keywords(name, kwargs, type(self))
        if "dtype" in kwargs:
            raise ValueError(
                f"`dtype` of {name} is that of the layer that it wraps. Received: "
                f"dtype={kwargs['dtype']!r}. Give it to that layer."
            )
        # The inputs are the wrapped layer's to cast.
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

    def wrapped(self):
        """The layer whose weights are perturbed."""
        return self.layer

    @property
    def input_spec(self):
        """That of the wrapped layer."""
        return self.layer.input_spec

    # As attributes of their own, so that a layer such as SpectralNormalization finds
    # the weight of the wrapped one; one that is not there is none here either.
    kernel = property(lambda self: self.layer.kernel)
    embeddings = property(lambda self: self.layer.embeddings)

    @property
    def go_backwards(self):
        """Not there: a `Bidirectional`, which looks for it, takes no such layer."""
        raise AttributeError(out_of_bidirectional(type(self).__name__, self.layer))

    def build(self, input_shape=None):
        """Builds the wrapped layer, if it is not, and checks its weights."""
        layer = self.layer
        if not layer.built and _builds_of_one_shape(layer):
            layer.build(input_shape)
            layer.built = True
        self._check_weights()

    def build_from_config(self, config):
        """Builds the wrapped layer as it was built when the config was made."""
        super().build_from_config(config)
        if self._is_checked or "input_shape" not in (config or {}):
            return
        try:
            inputs = keras.KerasTensor((1, *config["input_shape"][1:]))
            states = [self.get_initial_state(1)] if self._is_cell else []
            calling.compute_output_spec(self.layer, inputs, *states)
        except Exception:
            # It takes inputs of another kind: its first call makes its weights.
            return
        self._check_weights(called=True)

    def _check_weights(self, called=False):
        """Raises unless the weights are there, and such as `noisy` can take.

        Those that the wrapped layer makes only when it is called, as its children are
        in a layer without a `build`, are waited for until it was.
        """
        complete = called or weight_lookup.are_made(self.layer)
        for weight in self._choose(partly=not complete):
            if not weight.is_quantized:
                self.check_weight(weight)
        self._is_checked = complete

    def _choose(self, partly=False):
        return weight_lookup.choose(self.layer, self._weight_names, partly=partly)

    def check_weight(self, weight):
        """Raises unless `noisy` can take it."""
        validation.check_floating(weight.variable.dtype, weight.variable.name)
        for inner in weight_lookup.inside(self.layer):
            normalizes = isinstance(inner, keras.layers.SpectralNormalization)
            if normalizes and inner.built and inner.kernel is weight.variable:
                raise _of_spectral_normalization(self, weight)

    def noisy(self, weight, value, seed):
        """Returns what stands in for a weight in one call in training.

        Args:
            weight: The `Weight`.
            value: Tensor, its value, as it is stored.
            seed: Integer tensor of shape (2,), from `masks.seed_pair`.

        Returns:
            Tensor of the shape and dtype of `value`.
        """
        raise NotImplementedError

    def call(self, inputs, *args, training=False, **kwargs):
        """Calls the wrapped layer, in training on noisy weights."""
        if not training or self._is_quiet(kwargs):
            outputs = self.layer(inputs, *args, training=training, **kwargs)
            if not self._is_checked:
                self._check_weights(called=True)
            return outputs
        if not self._is_checked:
            self._make_weights(inputs, *args, training=False, **kwargs)
        values = self.drawn() if self._is_cell else self.draw()
        with Overlay(values) as overlay:
            outputs = self.layer(inputs, *args, training=training, **kwargs)
        for loss in overlay.losses:
            self.add_loss(loss)
        return outputs

    def _make_weights(self, *args, **kwargs):
        """Has the wrapped layer make the weights that it makes only when called.

        Returns:
            `KerasTensor`s like what it gives. Nothing is computed or assigned.
        """
        spec = calling.compute_output_spec(self.layer, *args, **kwargs)
        self._check_weights(called=True)
        return spec

    def _is_zero(self):
        return not self._adjustable and self._rate == 0

    def _is_quiet(self, kwargs):
        if self._is_zero():
            return True
        # AWD-LSTM drops rows that are looked up, not those that give the logits.
        reversible = isinstance(self.layer, keras.layers.ReversibleEmbedding)
        return reversible and kwargs.get("reverse", False)

    def draw(self, step_input=None, states=None):
        """Returns a list of (variable, noisy value), of each weight that is chosen."""
        if self._is_zero():
            return []
        if not self._is_checked and self._is_cell:
            batch_size = keras.ops.shape(step_input)[0]
            states = self.get_initial_state(batch_size)
            self._make_weights(step_input, states, training=False)
            # The next cells see what this call was told.
            in_training(step_input, training=True)
        return calling(function=self._draw)

    def _draw(self):
        chosen = self._choose()
        self._warn_of([weight.path for weight in chosen if weight.is_quantized])
        return [
            (
                weight.variable,
                self.noisy(
                    weight,
                    tf.convert_to_tensor(weight.variable),
                    masks.seed_pair(self.seed_generator),
                ),
            )
            for weight in chosen
            if not weight.is_quantized
        ]

    def _warn_of(self, quantized):
        if quantized and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{type(self).__name__} {self.name!r} puts no noise on "
                f"{', '.join(quantized)} of {self.layer.name!r}, quantized to "
                "integers. Train before `quantize`.",
                stacklevel=2,
            )

    def read_knobs(self):
        """Returns the knobs, in order: floats, or tensors if they are adjustable."""
        knobs = [getattr(self, f"_{name}") for name in self._knobs]
        return [tf.convert_to_tensor(k) for k in knobs] if self._adjustable else knobs

    def compute_mask(self, inputs, previous_mask=None):
        """The mask that the wrapped layer gives, None if it gives none."""
        if not self.layer.supports_masking:
            return None
        return self.layer.compute_mask(inputs, previous_mask)

    def compute_output_shape(self, *args, **kwargs):
        """That of the wrapped layer."""
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args, training=None, **kwargs):
        """That of the wrapped layer."""
        if self._is_checked:
            return self.layer.compute_output_spec(*args, **kwargs)
        # Called, and not only asked for its shape: that is when it makes its weights.
        return self._make_weights(*args, **kwargs)

    def get_config(self):
        """Returns the arguments, with the config of the wrapped layer."""
        outermost = not hasattr(_being_saved, "configs")
        if outermost:
            _being_saved.configs = {}
        configs = _being_saved.configs
        try:
            if id(self) not in configs:
                configs[id(self)] = self._make_config()
            return {**configs[id(self)]}
        finally:
            if outermost:
                del _being_saved.configs

    def _make_config(self):
        config = super().get_config()
        del config["dtype"]
        # Once more: in a file Keras marks a layer as shared when it comes to it again,
        # and of one inside of another it would mark a dict that was copied before.
        layer = keras.saving.serialize_keras_object(self.layer)
        if _builds_by_default(self.layer):
            # Keras would take it as built, while its children are not.
            layer.pop("build_config", None)
        return {**config, "layer": layer, "weights": self._weight_names}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the layer that `get_config` is of, and the one that it wraps."""
        # Keras takes the wrapped layer out of the dict that it is given.
        return super().from_config({**config}, custom_objects)


# The configs of this call of `get_config`: the wrapped layer is serialized twice, so
# that without them one in n wrappers would be 2^n times. Of each thread its own.
_being_saved = threading.local()


def _unquantized(policy):
    """The dtype policy that was quantized: it is of layers that quantize themselves."""
    if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
        policy = policy.default_policy
    if policy.quantization_mode is None:
        return policy
    return policy.get_config()["source_name"]


def _check_layer(layer, name):
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


def _of_spectral_normalization(wrapper, weight):
    name, owner = type(wrapper).__name__, type(weight.owner).__name__
    return ValueError(
        "`weights` must be weights that the layer does not assign when it is called, "
        "as keras.layers.SpectralNormalization does: the noise would come into the "
        f"weight itself. Received: weights with {weight.path} of "
        f"{wrapper.layer.name!r}. Put {name} inside: "
        f"SpectralNormalization({name}({owner}(...), ...))."
    )


def _builds_of_one_shape(layer):
    """Whether it makes its weights in a `build` that asks for the shape of one input.

    Keras gives the others, such as attention, those of several; this wrapper has one.
    """
    if not weight_lookup.has_build(layer):
        return False
    parameters = inspect.signature(layer.build).parameters.values()
    return sum(p.default is p.empty for p in parameters) < 2


def _builds_by_default(layer):
    base = keras.layers.Layer
    builds = (type(layer).build, type(layer).build_from_config)
    return builds == (base.build, base.build_from_config)
