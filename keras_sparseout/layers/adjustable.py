"""Layers whose knobs, such as rate and q, can be changed while they train."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import tracing, variables
from keras_sparseout.utils.types import Shape, Tensor


class Knob:
    """A number of an `AdjustableLayer` that reads as a float and checks what it gets.

    The layer keeps it as `_<name>`: a variable if it is adjustable, otherwise a float.

    Args:
        check: Function that returns a value as a float, or raises.
        meaning: What the number is, for the docstring.
    """

    def __init__(self, check: Callable[[Any], float], meaning: str) -> None:
        self.check = check
        self.__doc__ = (
            f"{meaning}, a float. Read it outside of traced code. If the layer is "
            "adjustable, you can assign to it."
        )

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, layer: None, owner: type) -> "Knob": ...

    @overload
    def __get__(self, layer: "AdjustableLayer", owner: type) -> float: ...

    def __get__(self, layer: "AdjustableLayer | None", owner: type) -> "Knob | float":
        return self if layer is None else layer._read_knob(self.name)

    def __set__(self, layer: "AdjustableLayer", value: float) -> None:
        layer._assign_knob(self.name, self.check(value))


class _KnobVariable(keras.Variable):
    """The variable of a knob, which refuses the values that the layer refuses.

    `model.set_weights` and files assign to variables directly, not through the layer.

    Args:
        value: The first value, a float.
        check: Function that returns a value as a float, or raises.
        layer_name: Name of the layer, for the message.
        name: Name of the knob.
    """

    def __init__(
        self, value: float, check: Callable[[Any], float], layer_name: str, name: str
    ) -> None:
        self._check = check
        self._owner = f"Layer {layer_name!r}: "
        self._knob = name
        self.check(value)
        super().__init__(
            # Keras refuses the value itself while it traces.
            initializer=keras.initializers.Constant(value),
            shape=(),
            # Whatever the policy: in float16 a rate of .3 is another threshold.
            dtype="float32",
            trainable=False,
            autocast=False,
            # The same on all replicas, also where a training step assigns it.
            aggregation="mean",
            name=name,
        )

    def check(self, value: Tensor) -> None:
        """Raises unless `value` is one number that the knob may have."""
        is_tensor = ops.is_tensor(value)
        array = variables.to_numpy(value) if is_tensor else np.asarray(value)
        try:
            # As the variable stores it: 1e39 is infinite in float32.
            with np.errstate(over="ignore"):
                number = float(array.astype("float32"))
        except (TypeError, ValueError):
            raise ValueError(
                f"{self._owner}`{self._knob}` must be one number. Received: "
                f"{self._knob}={value!r}. Give what `get_weights` returns."
            ) from None
        try:
            self._check(number)
        except ValueError as error:
            raise ValueError(f"{self._owner}{error}") from None

    def assign(self, value: Tensor) -> Tensor:
        """Assigns `value`; raises unless the knob may have it."""
        # A tensor that is being traced has no value yet.
        if tracing.current_graph() is None or not ops.is_tensor(value):
            self.check(value)
        return super().assign(value)


class AdjustableLayer(keras.layers.Layer):
    """A layer with knobs: variables if it is adjustable, otherwise constants.

    A subclass has a `Knob` for each of them. Assigning to a knob takes effect at the
    next training step, without a retrace. It raises if the layer is not adjustable: the
    compiled graph would keep the old value of a constant.

    Args:
        knobs: Dict of the first values, floats, by name.
        adjustable: Whether they are variables.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.
    """

    def __init__(
        self, knobs: Mapping[str, float], adjustable: bool, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._adjustable = adjustable
        self._knobs = tuple(knobs)
        self._controller_state: np.ndarray | None = None
        self._noted_shape: Shape | None = None
        for name, value in knobs.items():
            setattr(self, f"_{name}", self._add_knob(name, value))

    @property
    def adjustable(self) -> bool:
        """Whether the knobs are variables, to which you can assign."""
        return self._adjustable

    @property
    def knobs(self) -> tuple[str, ...]:
        """Names of the knobs."""
        return self._knobs

    @property
    def controller_state(self) -> np.ndarray | None:
        """What a callback needs to resume a run, saved with the weights.

        None, or a vector that is kept as a float64 NumPy array. It is not a weight.
        """
        return self._controller_state

    @controller_state.setter
    def controller_state(self, state: Sequence[float] | np.ndarray | None) -> None:
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

    def build_at_once(self) -> None:
        """Marks the layer as built, unless a subclass has a `build` for Keras to call.

        A layer of this package has nothing to make there.
        """
        self.built = type(self).build is keras.layers.Layer.build

    def note_shape(self, shape: Shape) -> None:
        """Notes the shape of the inputs, as Keras does where it calls `build`."""
        if self._noted_shape is None:
            self._noted_shape = shape

    def get_build_config(self) -> dict[str, Any]:
        if self._noted_shape is None:
            return super().get_build_config()
        return {"input_shape": self._noted_shape}

    def read_knobs(self) -> dict[str, float | Tensor]:
        """Returns the value of each knob: a float, or a tensor if it is adjustable."""
        knobs = {name: getattr(self, f"_{name}") for name in self._knobs}
        if not self._adjustable:
            return knobs
        # A cast reads the variable; convert_to_tensor would return it as it is.
        return {name: ops.cast(knob, knob.dtype) for name, knob in knobs.items()}

    def _add_knob(self, name, value):
        if not self._adjustable:
            return value
        check = _check_of(type(self), name)
        with keras.name_scope(self.name, caller=self):
            return _KnobVariable(value, check, self.name, name)

    def _read_knob(self, name):
        value = getattr(self, f"_{name}")
        if not self._adjustable:
            return value
        # The shortest decimal: what was assigned as .3 reads as .3, not .30000001.
        return float(str(variables.to_numpy(value)))

    def _assign_knob(self, name, value):
        if not self._adjustable:
            raise AttributeError(
                f"`{name}` of layer {self.name!r} is a constant of the compiled graph "
                f"and can't be assigned. Received: {name}={value!r}. Make the layer "
                f"with {type(self).__name__}(..., adjustable=True) to change it while "
                "training."
            )
        getattr(self, f"_{name}").assign(value)

    def set_weights(self, weights: Sequence[Tensor]) -> None:
        # Check all of them before the first is assigned.
        for variable, value in zip(self.weights, weights, strict=False):
            if isinstance(variable, _KnobVariable):
                variable.check(value)
        super().set_weights(weights)

    def save_own_variables(self, store: dict[str, Any]) -> None:
        # A subclass may have variables of its own, which Keras numbers in files.
        for number, variable in enumerate(self._further_variables()):
            store[str(number)] = variable
        for name, variable in self._named_variables().items():
            store[name] = variables.to_numpy(variable)
        if self._controller_state is not None:
            store["controller_state"] = self._controller_state

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        # What the file lacks of the layer's own keeps its value: it may come from a
        # model with another layer here, or with constant knobs. Check all before any
        # is assigned.
        further = self._further_values_in(store)
        values = self._values_in(store)
        state = self._controller_state
        if "controller_state" in store:
            state = self._check_controller_state(store["controller_state"])
        # The first ones may raise when they are assigned, for their shape.
        for variable, value in [*further, *values]:
            variable.assign(value)
        self._controller_state = state

    def _named_variables(self):
        """Returns the variables that files have by name, and that they may lack.

        A subclass of this package adds its own.
        """
        names = self._knobs if self._adjustable else ()
        return {name: getattr(self, f"_{name}") for name in names}

    def _further_variables(self):
        """Returns the variables that a subclass outside of this package has made."""
        found: dict[str, Any] = {}
        super().save_own_variables(found)
        named = {id(variable) for variable in self._named_variables().values()}
        return [variable for variable in found.values() if id(variable) not in named]

    def _further_values_in(self, store):
        """Returns (variable, value) of `_further_variables`; raises as Keras would.

        That is if any is missing, or there are more. A layer without them takes what
        it knows from any file.
        """
        further = self._further_variables()
        held = sum(map(str.isdecimal, store.keys()))
        reads = type(self).load_own_variables.__module__.split(".")[0]
        if not held and reads != "keras_sparseout":
            further = []  # The class has them under names of its own.
        if further and held != len(further):
            names = ", ".join(variable.name for variable in further)
            raise ValueError(
                f"Layer {self.name!r}: a file must have the {len(further)} variables "
                f"that its class adds ({names}). Received: a file with {held}. Load a "
                f"file of the same class, {type(self).__name__}, that was built alike."
            )
        return [(v, store[str(number)]) for number, v in enumerate(further)]

    def _values_in(self, store):
        """Returns the checked values that `store` has, as a list of (variable, value).

        A subclass adds the variables of its own.
        """
        if not self._adjustable:
            return []
        held = [name for name in self._knobs if name in store]
        values = [(getattr(self, f"_{name}"), np.asarray(store[name])) for name in held]
        for variable, value in values:
            variable.check(value)
        return values

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in self._knobs},
            "adjustable": self._adjustable,
        }

    def __repr__(self) -> str:
        # What Keras writes, with the knobs before it.
        kind, rest = super().__repr__().split(" ", 1)
        return " ".join([kind, *self._shown_knobs(), rest])

    def _shown_knobs(self):
        with variables.outside_graph() as have_values:
            if not have_values:
                return []
            # During construction the last ones are missing.
            names = getattr(self, "_knobs", ())
            made = [name for name in names if hasattr(self, f"_{name}")]
            return [f"{name}={self._read_knob(name):g}," for name in made]


def _check_of(layer, name):
    """Returns the `check` of a knob of the layer class `layer`."""
    # A subclass may hide it behind a property of its own.
    found = (vars(base).get(name) for base in layer.__mro__)
    return next(knob.check for knob in found if isinstance(knob, Knob))


def has_knob(layer: keras.layers.Layer, name: str) -> bool:
    """Whether `layer` has the knob `name`, be it a variable or a constant."""
    return isinstance(layer, AdjustableLayer) and name in layer.knobs


def move_knob(layer: AdjustableLayer, name: str, value: Tensor) -> None:
    """Assigns a tensor to a knob, in a training step that is being traced.

    Args:
        layer: A layer with `adjustable=True`.
        name: Name of the knob.
        value: A number that the knob may have. It can't be checked while tracing.
    """
    getattr(layer, f"_{name}").assign(value)
