"""Measures inside the training and test steps of a Keras model.

Keras keeps the function that runs a training step in `model.train_function`, the one
for a test step in `model.test_function`. `MeasuredStep` lends the model another one for
a single call:

1. Armed: before a batch, `arm` puts a stand-in where the model has its function.
2. Called: Keras calls the stand-in. First it gives the model its own function back,
   then it runs the measuring function.
3. Made and traced once: in the first batch, the model's `make_train_function` makes the
   measuring function, while `train_step` is replaced by one with our contexts around
   it. TensorFlow traces it, and what the contexts do becomes a part of the graph. Later
   batches run that graph.
4. Restored: after the batch, `disarm` gives the function back if Keras made no step.

So the model is unchanged between two batches: it can be saved, or trained without us.
Another thread that trains it meanwhile runs the model's own function.

`arm_around` lends a stand-in for one call too. What it enters runs in each step, and is
no part of the graph.
"""

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, TypeAlias

import keras
import tensorflow as tf

from keras_sparseout.backend.tensorflow import tracing

Kind: TypeAlias = Literal["train", "test"]
Context: TypeAlias = Callable[[], AbstractContextManager[None]]
# From the iterator over the data to the logs of a step.
StepFunction: TypeAlias = Callable[[Iterator[Any]], Any]


class MeasuredStep:
    """Steps of a model that run inside a context.

    Args:
        model: A Keras model.
        kind: Which steps, "train" or "test".
        context: Function that returns a context manager, which is entered around the
            model's `train_step` or `test_step`: while it is traced, or at each call if
            the model runs eagerly.

    Attributes:
        called: Whether the model made a step since `arm` was called.
    """

    def __init__(self, model: keras.Model, kind: Kind, context: Context) -> None:
        self.model = model
        self.kind = kind
        self.context = context
        self.called = False
        self._checked: StepFunction | None = None
        # The measuring function, and what it was made from, see `_function_for`.
        self._function: StepFunction | None = None
        self._made_from: tuple[StepFunction, list[MeasuredStep]] | None = None

    def check(self) -> None:
        """Raises unless the model can make a measuring function like its own one."""
        own = _own_function(self.model, self.kind)
        if own is not self._checked:
            _check_step(self.model, self.kind)
            _check_function(self.model, self.kind, own)
            self._checked = own

    def arm(self) -> None:
        """Makes the model's next step one that runs inside the context."""
        stand_in = _stand_in_for(self.model, self.kind)
        if self not in stand_in.steps:
            self.called = False
            stand_in.steps.append(self)

    def disarm(self) -> None:
        """Gives the model its own function back, if it made no step since `arm`."""
        restore(self.model, self.kind)

    def not_measured(self) -> ValueError:
        """The error for a batch that should have been measured, and was not."""
        kind = self.kind
        if not self.called:
            return ValueError(
                "`watching` must be around the forward pass in a loop of your own: "
                "`with callback.watching(): y = model(x)`, where callback is the "
                "tracker or controller. Received: a batch without it, and without "
                f"model.{kind}_on_batch. If it is there, the step was compiled before: "
                "make the tf.function again."
            )
        return ValueError(
            f"`make_{kind}_function` of the model must make functions that call its "
            f"`{kind}_step`, where activations are measured. Received: "
            f"{type(self.model).__name__}, whose function was compiled before, or with "
            f"another step. Make it in `make_{kind}_function`, from "
            f"`self.{kind}_step`, or use SparsityTracker(x), which measures probe data "
            "instead."
        )

    def _function_for(
        self, own: StepFunction, steps: "list[MeasuredStep]"
    ) -> StepFunction:
        """Returns the measuring function for `steps`, of which this is the first.

        It is kept here until the model has another function of its own, or other
        callbacks measure beside this one.
        """
        if self._function is None or self._made_from != (own, steps):
            contexts = [step.context for step in steps]
            self._function = _MeasuringFunction(self.model, self.kind, contexts)
            self._made_from = own, steps
        return self._function


def arm_around(model: keras.Model, kind: Kind, context: Context) -> None:
    """Makes the model's next step run inside a context that is entered as it begins.

    The context is left when the step ends, also by an error. `restore` undoes this.

    Args:
        model: A Keras model.
        kind: Which step, "train" or "test".
        context: Function that returns the context manager.
    """
    _stand_in_for(model, kind).arounds.append(context)


def restore(model: keras.Model, kind: Kind) -> None:
    """Gives the model its own function back, if it made no step since."""
    stand_in = vars(model).get(f"{kind}_function")
    if _is_ours(stand_in):
        vars(model)[f"{kind}_function"] = stand_in.own


class _StandIn:
    """Takes the place of a model's step function for one call."""

    def __init__(self, model: keras.Model, kind: Kind, own: StepFunction) -> None:
        self.model = model
        self.kind = kind
        self.own = own
        self.steps: list[MeasuredStep] = []
        self.arounds: list[Context] = []
        self.thread = threading.get_ident()

    def __call__(self, iterator: Iterator[Any]) -> Any:
        if not _is_ours(self):
            return self.own(iterator)
        restore(self.model, self.kind)
        for step in self.steps:
            step.called = True
        with contextlib.ExitStack() as stack:
            for around in self.arounds:
                stack.enter_context(around())
            if not self.steps:
                return self.own(iterator)
            # Callbacks that measure different layers share one function.
            return self.steps[0]._function_for(self.own, self.steps)(iterator)


class _MeasuringFunction:
    """A step function that the model made, around a step inside our contexts."""

    def __init__(
        self, model: keras.Model, kind: Kind, contexts: Sequence[Context]
    ) -> None:
        self.model = model
        self.name = f"{kind}_step"
        self.contexts = contexts
        self.thread: int | None = None
        make = f"make_{kind}_function"
        # A function that the user's code makes may look its step up at each call.
        self.looks_up_step = make in vars(model) or (
            getattr(type(model), make) is not getattr(keras.Model, make)
        )
        with self._step_replaced():
            self.function = _make_function(model, kind)

    def __call__(self, iterator: Iterator[Any]) -> Any:
        self.thread = threading.get_ident()
        try:
            if not self.looks_up_step:
                return self.function(iterator)
            with self._step_replaced():
                return self.function(iterator)
        finally:
            self.thread = None

    @contextlib.contextmanager
    def _step_replaced(self) -> Iterator[None]:
        """Puts a step with our contexts around it where the model has its own."""
        attributes = vars(self.model)
        step, own = getattr(self.model, self.name), attributes.get(self.name)

        def measured_step(data):
            with contextlib.ExitStack() as stack:
                if self._is_called():
                    for context in self.contexts:
                        stack.enter_context(context())
                return step(data)

        attributes[self.name] = measured_step
        try:
            yield
        finally:
            del attributes[self.name]
            if own is not None:
                attributes[self.name] = own

    def _is_called(self) -> bool:
        """Whether this thread calls this function, or is a replica of one that does."""
        if self.model.distribute_strategy.num_replicas_in_sync > 1:
            return self.thread is not None
        return self.thread == threading.get_ident()


def _own_function(model: keras.Model, kind: Kind) -> StepFunction:
    """The model's own step function, also while a stand-in has its place."""
    function = vars(model)[f"{kind}_function"]
    if function is None:
        # As train_on_batch would do next.
        getattr(model, f"make_{kind}_function")()
        function = vars(model)[f"{kind}_function"]
    return function.own if isinstance(function, _StandIn) else function


def _stand_in_for(model: keras.Model, kind: Kind) -> _StandIn:
    """Returns the stand-in of this thread, which it puts there if there is none."""
    own = _own_function(model, kind)
    stand_in = vars(model)[f"{kind}_function"]
    if not _is_ours(stand_in):
        stand_in = _StandIn(model, kind, own)
        vars(model)[f"{kind}_function"] = stand_in
    return stand_in


def _is_ours(function: object) -> bool:
    """Whether it is a stand-in of this thread: others may train the same model."""
    return isinstance(function, _StandIn) and function.thread == threading.get_ident()


def _check_step(model: keras.Model, kind: Kind) -> None:
    step = getattr(model, f"{kind}_step")
    if tracing.is_tf_function(step) and not tf.config.functions_run_eagerly():
        raise ValueError(
            f"`{kind}_step` of the model must not be a tf.function of its own, from "
            "where activations can't be read. Received: "
            f"{type(model).__name__}.{kind}_step with @tf.function. Take the decorator "
            "away: Keras compiles the step."
        )


def _check_function(model: keras.Model, kind: Kind, own: StepFunction) -> None:
    made = _make_function(model, kind)
    if made is own or _code_of(made) is not _code_of(own):
        raise ValueError(
            f"`{kind}_function` of the model must come from `make_{kind}_function`, "
            "which is called again for a function that also measures. Received: "
            f"model.{kind}_function={own!r}. "
            f"Override `{kind}_step` or `make_{kind}_function` to do what it does, or "
            "use SparsityTracker(x), which measures probe data instead."
        )


def _make_function(model: keras.Model, kind: Kind) -> StepFunction:
    """Has the model make another step function, and leaves it the one that it has."""
    attributes, name = vars(model), f"{kind}_function"
    make = getattr(model, f"make_{kind}_function")
    parameters = inspect.signature(make).parameters.values()
    force = any(p.name == "force" or p.kind is p.VAR_KEYWORD for p in parameters)
    before = attributes[name]
    if not force:  # Such an override makes one only where there is none.
        attributes[name] = None
    try:
        made = make(force=True) if force else make()
        now = attributes[name]
        return made if now is None or now is before else now
    finally:
        attributes[name] = before


def _code_of(function: StepFunction) -> object:
    """What two functions share if the same lines of code made them."""
    function = getattr(function, "python_function", function)
    return getattr(function, "__code__", type(function))
