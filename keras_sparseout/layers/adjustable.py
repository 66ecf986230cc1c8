"""Layers whose knobs, such as rate and q, can be changed while they train."""

import keras
import numpy as np
import tensorflow as tf


class _Knob(property):
    """A property of an `Adjustable` layer, and the `check` that its values pass."""


def knob(name, check, meaning):
    """Returns the property `name` of an `Adjustable` layer, whose values `check` takes.

    Args:
        name: Name of the knob, which the layer keeps as `_<name>`.
        check: Function that returns a value as a float, or raises.
        meaning: What it is, for its docstring.
    """

    def read(layer):
        return layer._read_knob(name)

    def assign(layer, value):
        layer._assign_knob(name, check(value))

    doc = (
        f"{meaning}, a float, to read outside of traced code and, if the layer is "
        "adjustable, to assign."
    )
    made = _Knob(read, assign)
    made.__doc__, made.check = doc, check
    return made


class _KnobVariable(keras.Variable):
    """The variable of a knob, which refuses the values that the layer refuses.

    `model.set_weights` and files assign to variables, past the property of the layer.

    Args:
        value: The first value, a float.
        check: Function that returns a value as a float, or raises.
        layer_name: Name of the layer, for the message.
        name: Name of the knob.
    """

    def __init__(self, value, check, layer_name, name):
        self._check = check
        self._owner = f"Layer {layer_name!r}: "
        self._knob = name
        self.check(value)
        super().__init__(
            # Not the value itself, which Keras refuses where it traces.
            initializer=keras.initializers.Constant(value),
            shape=(),
            # Whatever the policy: in float16 a rate of .3 is another threshold.
            dtype="float32",
            trainable=False,
            autocast=False,
            name=name,
        )

    def check(self, value):
        """Raises unless `value` is one number that the knob may have."""
        number = value_of(value) if tf.is_tensor(value) else np.asarray(value)
        try:
            # As it is stored: 1e39 is infinite in float32.
            with np.errstate(over="ignore"):
                number = float(number.astype("float32"))
        except (TypeError, ValueError):
            raise ValueError(
                f"{self._owner}`{self._knob}` must be one number. Received: "
                f"{self._knob}={value!r}. Give what `get_weights` returns."
            ) from None
        try:
            self._check(number)
        except ValueError as error:
            raise ValueError(f"{self._owner}{error}") from None

    def assign(self, value):
        """Assigns `value`; raises unless it is one that the knob may have."""
        # In a graph a tensor has no value yet.
        if tf.executing_eagerly() or not tf.is_tensor(value):
            self.check(value)
        return super().assign(value)


class Adjustable(keras.layers.Layer):
    """A layer with knobs: variables if it is adjustable, otherwise constants.

    A subclass has a `knob` for each of them. Assigning to one takes effect at the next
    training step, without a retrace, or raises if the layer is not adjustable: a
    constant of the compiled graph would keep its old value.

    Args:
        knobs: Dict of the first values, floats, by name.
        adjustable: Whether they are variables.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.
    """

    def __init__(self, knobs, adjustable, **kwargs):
        super().__init__(**kwargs)
        self._adjustable = adjustable
        self._knobs = tuple(knobs)
        self._controller_state = None
        self._noted_shape = None
        for name, value in knobs.items():
            setattr(self, f"_{name}", self._add_knob(name, value))

    adjustable = property(lambda self: self._adjustable)
    knobs = property(lambda self: self._knobs, doc="Names of the knobs, a tuple.")

    @property
    def controller_state(self):
        """What a callback has to find again in a resumed run, saved with the weights.

        None, or a vector that is kept as a float64 numpy array; not a weight.
        """
        return self._controller_state

    @controller_state.setter
    def controller_state(self, state):
        self._controller_state = self._check_controller_state(state)

    def _check_controller_state(self, state):
        if state is None:
            return None
        try:
            vector = np.array(state, "float64")
        except (TypeError, ValueError):
            vector = None
        if vector is None or vector.ndim != 1:
            received = f"={state!r}" if vector is None else f" of shape {vector.shape}"
            raise ValueError(
                f"Layer {self.name!r}: `controller_state` must be None or a vector of "
                f"numbers. Received: controller_state{received}. Give a flat list."
            )
        return vector

    def build_at_once(self):
        """Makes the layer a built one, since there is nothing to make in `build`.

        Unless a subclass has something to make there: Keras would not call it.
        """
        self.built = type(self).build is keras.layers.Layer.build

    def note_shape(self, shape):
        """Notes the shape of the inputs, which Keras does where it calls `build`."""
        if self._noted_shape is None:
            self._noted_shape = shape

    def get_build_config(self):
        if self._noted_shape is None:
            return super().get_build_config()
        return {"input_shape": self._noted_shape}

    def _add_knob(self, name, value):
        if not self._adjustable:
            return value
        check = _check_of(type(self), name)
        with keras.name_scope(self.name, caller=self):
            return _KnobVariable(value, check, self.name, name)

    def _read_knob(self, name):
        value = getattr(self, f"_{name}")
        # The shortest decimal, so that what was assigned as .3 reads as .3.
        return float(str(value_of(value))) if self._adjustable else value

    def _assign_knob(self, name, value):
        if not self._adjustable:
            raise AttributeError(
                f"`{name}` of layer {self.name!r} is a constant of the compiled graph "
                f"and can't be assigned. Received: {name}={value!r}. Make the layer "
                f"with {type(self).__name__}(..., adjustable=True) to change it while "
                "training."
            )
        getattr(self, f"_{name}").assign(value)

    def set_weights(self, weights):
        # All are checked before the first is assigned.
        for variable, value in zip(self.weights, weights, strict=False):
            if isinstance(variable, _KnobVariable):
                variable.check(value)
        super().set_weights(weights)

    def save_own_variables(self, store):
        if self._adjustable:
            for name in self._knobs:
                store[name] = value_of(getattr(self, f"_{name}"))
        if self._controller_state is not None:
            store["controller_state"] = self._controller_state

    def load_own_variables(self, store):
        # What is absent stays as constructed: a file may come from a model with other
        # layers here, or with constant knobs. All is checked before any is assigned.
        values = self._values_in(store)
        state = self._controller_state
        if "controller_state" in store:
            state = self._check_controller_state(store["controller_state"])
        for variable, value in values:
            variable.assign(value)
        self._controller_state = state

    def _values_in(self, store):
        """Returns a list of (variable, value), of those that `store` has, checked."""
        if not self._adjustable:
            return []
        held = [name for name in self._knobs if name in store]
        values = [(getattr(self, f"_{name}"), np.asarray(store[name])) for name in held]
        for variable, value in values:
            variable.check(value)
        return values

    def get_config(self):
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in self._knobs},
            "adjustable": self._adjustable,
        }

    def __repr__(self):
        # What Keras writes, with the knobs before it.
        kind, rest = super().__repr__().split(" ", 1)
        return " ".join([kind, *self._shown_knobs(), rest])

    def _shown_knobs(self):
        # Out of a graph, where a variable has no value to show.
        with tf.init_scope():
            if tf.executing_eagerly():
                # While it is constructed the last ones are missing.
                made = [
                    k for k in getattr(self, "_knobs", ()) if hasattr(self, f"_{k}")
                ]
                return [f"{name}={self._read_knob(name):g}," for name in made]
        return []


def _check_of(layer, name):
    """Returns the `check` of a knob of the layer class `layer`."""
    # A subclass may have a property of its own over it.
    found = (vars(base).get(name) for base in layer.__mro__)
    return next(k.check for k in found if isinstance(k, _Knob))


def value_of(variable):
    """Returns the value of a Keras variable or tensor as a numpy array or scalar."""
    # keras.ops.convert_to_numpy of a variable warns with numpy 2.
    return tf.convert_to_tensor(variable).numpy()


def has_knob(layer, name):
    """Whether `layer` has the knob `name`, be it a variable or a constant."""
    return isinstance(layer, Adjustable) and name in layer.knobs
