"""Layers whose weights are perturbed while they are called, and nowhere else."""

import inspect

import keras
import tensorflow as tf

from keras_sparseout import layer_weights, masks, validation
from keras_sparseout.cells import NoisyCell, check_cell


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
        validation.check_keywords(name, kwargs, type(self))
        if "dtype" in kwargs:
            raise ValueError(
                f"`dtype` of {name} is that of the layer that it wraps. Received: "
                f"dtype={kwargs['dtype']!r}. Give it to that layer."
            )
        # The inputs are the wrapped layer's to cast.
        kwargs = {**kwargs, "dtype": layer.dtype_policy, "autocast": False}
        super().__init__(knobs, adjustable, seed, layer=layer, **kwargs)
        self._weight_names = layer_weights.check_names(weights)
        self._is_cell = _is_cell(layer)
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

    def build(self, input_shape=None):
        """Builds the wrapped layer, if it is not, and checks its weights."""
        layer = self.layer
        if not layer.built and _builds_of_one_shape(layer):
            layer.build(input_shape)
            layer.built = True
        self._check_weights()

    def _check_weights(self):
        for weight in layer_weights.choose(self.layer, self._weight_names):
            self.check_weight(weight)

    def check_weight(self, weight):
        """Raises unless `noisy` can take it."""
        validation.check_floating(weight.variable.dtype, weight.variable.name)

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
            return self.layer(inputs, *args, training=training, **kwargs)
        values = self.drawn() if self._is_cell else self.draw()
        with _Overlay(values) as overlay:
            outputs = self.layer(inputs, *args, training=training, **kwargs)
        for loss in overlay.losses:
            self.add_loss(loss)
        return outputs

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
        return _uncast(function=self._draw)

    def _draw(self):
        return [
            (
                weight.variable,
                self.noisy(
                    weight,
                    tf.convert_to_tensor(weight.variable),
                    masks.seed_pair(self.seed_generator),
                ),
            )
            for weight in layer_weights.choose(self.layer, self._weight_names)
        ]

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
        return self.layer.compute_output_spec(*args, **kwargs)

    def get_config(self):
        """Returns the arguments, with the config of the wrapped layer."""
        config = super().get_config()
        del config["dtype"]
        # Once more: in a file Keras marks a layer as shared when it comes to it again,
        # and of one inside of another it would mark a dict that was copied before.
        layer = keras.saving.serialize_keras_object(self.layer)
        return {**config, "layer": layer, "weights": self._weight_names}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the layer that `get_config` is of, and the one that it wraps."""
        # Keras takes the wrapped layer out of the dict that it is given.
        return super().from_config({**config}, custom_objects)


def _check_layer(layer, name):
    if not isinstance(layer, keras.layers.Layer):
        remedy = f"Give for example {name}(keras.layers.Dense(64), 0.5)."
        if isinstance(layer, type) and issubclass(layer, keras.layers.Layer):
            remedy = f"Make one first: {name}({layer.__name__}(...), 0.5)."
        raise ValueError(
            "`layer` must be a keras.layers.Layer, whose weights are perturbed. "
            f"Received: layer={layer!r}. {remedy}"
        )
    if _is_cell(layer):
        check_cell(layer, name, "layer")


def _builds_of_one_shape(layer):
    """Whether it makes its weights in a `build` that asks for the shape of one input.

    Keras gives the others, such as attention, those of several; this wrapper has one.
    """
    if type(layer).build is keras.layers.Layer.build:
        return False
    parameters = inspect.signature(layer.build).parameters.values()
    return sum(p.default is p.empty for p in parameters) < 2


def _is_cell(layer):
    # RNN layers have a `state_size` too.
    sized = getattr(layer, "state_size", None) is not None
    return sized and not isinstance(layer, keras.layers.RNN)


class _Overlay(keras.StatelessScope):
    """Puts values in the place of some variables, and lets all else happen as without.

    Keras' own scope holds back every assignment, so that all variables have to be put
    into it and read from it again. That misses the ones that a layer does not list,
    such as the states of a stateful RNN, and fails for those that are assigned inside
    a loop, such as the seed of a dropout in an RNN cell.
    """

    def __init__(self, values):
        super().__init__(collect_losses=True)
        for variable, value in values:
            super().add_update((variable, value))

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        if value is None and self.original_scope is not None:
            value = self.original_scope.get_current_value(variable)
        return value

    def add_update(self, update):
        variable, value = update
        if super().get_current_value(variable) is not None:
            raise ValueError(
                "`weights` must be weights that the layer does not assign when it is "
                "called: the noise would come into the weight itself. Received: "
                f"weights with {variable.path}. Leave it out."
            )
        self.__exit__()
        try:
            variable.assign(value)
        finally:
            self.__enter__()

    def add_loss(self, loss):
        if self.original_scope is None:
            super().add_loss(loss)
        # The layer that has it finds it there.
        elif self.original_scope.collect_losses:
            self.original_scope.add_loss(loss)


class _Uncast(keras.layers.Layer):
    """Calls a function where variables are read as they are stored.

    Inside of a layer in mixed precision they come in half precision.
    """

    def call(self, function):
        return function()


_uncast = _Uncast(dtype="float32", autocast=False)
