"""Layers whose knobs, such as rate and q, can be changed while they train."""

import inspect

import keras
import numpy as np
import tensorflow as tf


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
    return property(read, assign, doc=doc)


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
        if state is not None:
            state = np.array(state, "float64")
            if state.ndim != 1:
                raise ValueError(
                    "`controller_state` must be None or a vector of numbers. Received: "
                    f"controller_state of shape {state.shape}. Flatten it."
                )
        self._controller_state = state

    def _add_knob(self, name, value):
        if not self._adjustable:
            return value
        # float32 whatever the policy: in float16 a rate of .3 is another threshold.
        return self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(value),
            dtype="float32",
            trainable=False,
            autocast=False,
            name=name,
        )

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

    def save_own_variables(self, store):
        if self._adjustable:
            for name in self._knobs:
                store[name] = value_of(getattr(self, f"_{name}"))
        if self._controller_state is not None:
            store["controller_state"] = self._controller_state

    def load_own_variables(self, store):
        # What is absent stays as constructed: a file may come from a model with other
        # layers here, or with constant knobs.
        if self._adjustable:
            for name in self._knobs:
                if name in store:
                    getattr(self, f"_{name}").assign(store[name])
        if "controller_state" in store:
            self.controller_state = store["controller_state"]

    def get_config(self):
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in self._knobs},
            "adjustable": self._adjustable,
        }


def value_of(variable):
    """Returns the value of a Keras variable or tensor as a numpy array or scalar."""
    # keras.ops.convert_to_numpy of a variable warns with numpy 2.
    return tf.convert_to_tensor(variable).numpy()


def has_knob(layer, name):
    """Whether `layer` has the knob `name`, be it a variable or a constant."""
    return isinstance(layer, Adjustable) and name in layer.knobs


def adjustable_ones(watched, name, *, named):
    """Returns those of `watched` whose layers have the knob `name` as a variable.

    Args:
        watched: Layers, as `watching.find` gives them.
        name: Name of the knob.
        named: Whether the user named these layers, so that a constant is an error;
            otherwise it is one only if none is adjustable.
    """
    having = [w for w in watched if has_knob(w.layer, name)]
    adjustable = [w for w in having if w.layer.adjustable]
    constant = [w for w in having if not w.layer.adjustable]
    if constant and (named or not adjustable):
        raise ValueError(
            f"`layers` must be adjustable for their `{name}` to change. Received: "
            f"{', '.join(w.name for w in constant)} with adjustable=False. Make it "
            f"{call_of(constant[0].layer)[:-1]}, adjustable=True)."
        )
    return adjustable


def call_of(layer, **others):
    """The call that makes a constant layer like `layer`, with other knobs, as text."""
    config = {**layer.get_config(), **others}
    arguments = []
    for name, parameter in inspect.signature(type(layer)).parameters.items():
        value = config.get(name, parameter.default)
        unset = (parameter.default, None, False)
        if parameter.kind is parameter.VAR_KEYWORD or name == "adjustable":
            continue
        if name == "epsilon" and value == keras.config.epsilon():
            continue
        if isinstance(value, dict) and "class_name" in value:
            arguments.append(f"{value['class_name']}(...)")
        elif name == layer.knobs[0]:
            arguments.append(_brief(value))
        elif name in layer.knobs or not any(value is u or value == u for u in unset):
            arguments.append(f"{name}={_brief(value)}")
    return f"{type(layer).__name__}({', '.join([*arguments, f'name={layer.name!r}'])})"


def _brief(value):
    return f"{value:.4g}" if isinstance(value, float) else repr(value)
