"""The step functions of a Keras model, and how ours replaces one for a single call."""

import contextlib
import inspect
import threading

import keras
import tensorflow as tf

from keras_sparseout.backend.tensorflow import tracing


def present(model, kind):
    """The model's own function for steps of `kind`, "train" or "test"."""
    function = vars(model)[f"{kind}_function"]
    if function is None:
        # As train_on_batch would do next.
        getattr(model, f"make_{kind}_function")()
        function = vars(model)[f"{kind}_function"]
    return function.plain if isinstance(function, _Armed) else function


def check(model, kind):
    """Raises unless a function like the present one can be made, with hooks in it."""
    step = getattr(model, f"{kind}_step")
    if tracing.is_tf_function(step) and not tf.config.functions_run_eagerly():
        raise ValueError(
            f"`{kind}_step` of the model must not be a tf.function of its own, from "
            "where activations can't be read. Received: "
            f"{type(model).__name__}.{kind}_step with @tf.function. Take the decorator "
            "away: Keras compiles the step."
        )
    plain = present(model, kind)
    made = _make(model, kind)
    if made is plain or _origin(made) is not _origin(plain):
        raise ValueError(
            f"`{kind}_function` of the model must be one that its "
            f"`make_{kind}_function` makes anew, since its activations are measured "
            f"inside one that is made with hooks. Received: model.{kind}_function="
            f"{plain!r}. Override `{kind}_step` or `make_{kind}_function` to do what "
            "it does, or use SparsityTracker(x), which measures probe data instead."
        )


def arm(model, kind, recorder):
    """Makes the model's next step report to `recorder`, a `StepSums`."""
    attributes = vars(model)
    plain = present(model, kind)
    armed = attributes[f"{kind}_function"]
    if not _is_ours(armed):
        armed = attributes[f"{kind}_function"] = _Armed(model, kind, plain)
    if recorder not in armed.recorders:
        recorder.called = False
        armed.recorders.append(recorder)


def disarm(model, kind):
    """Gives the model its own function back, if `arm` is not used up."""
    armed = vars(model).get(f"{kind}_function")
    if _is_ours(armed):
        vars(model)[f"{kind}_function"] = armed.plain


def _is_ours(function):
    """Whether a function was armed in this thread: others may train the same model."""
    return isinstance(function, _Armed) and function.thread == threading.get_ident()


def unread(model, kind, called):
    """The error for a batch without a measured step, though one was to be.

    Args:
        model: The model.
        kind: "train" or "test".
        called: Whether the function in which it was to be was called.
    """
    if not called:
        name = {"train": "train_on_batch", "test": "test_on_batch"}[kind]
        return ValueError(
            "`watching` must be around the forward pass in a loop of your own: `with "
            "callback.watching(): y = model(x)`, where callback is the tracker or "
            f"controller. Received: a batch without it, and without model.{name}. If "
            "it is there, the step was compiled before: make the tf.function anew."
        )
    return ValueError(
        f"`make_{kind}_function` of the model must make functions that call its "
        f"`{kind}_step`, where activations are measured. Received: "
        f"{type(model).__name__}, whose function was compiled before, or with another "
        f"step. Make it in `make_{kind}_function`, from `self.{kind}_step`, or use "
        "SparsityTracker(x), which measures probe data instead."
    )


class _Armed:
    """Stands in for the model's step function for one call, then takes itself away."""

    def __init__(self, model, kind, plain):
        self.model = model
        self.kind = kind
        self.plain = plain
        self.recorders = []
        self.thread = threading.get_ident()

    def __call__(self, iterator):
        if not _is_ours(self):
            return self.plain(iterator)
        disarm(self.model, self.kind)
        for recorder in self.recorders:
            recorder.called = True
        # Callbacks that measure different layers share one step.
        owner = self.recorders[0]
        if owner.built is None or owner.built[:2] != (self.plain, self.recorders):
            hooked = _Hooked(self.model, self.kind, self.recorders)
            owner.built = (self.plain, self.recorders, hooked)
        return owner.built[2](iterator)


class _Hooked:
    """A step function of the model's own making, with a step that is measured."""

    def __init__(self, model, kind, recorders):
        self.model = model
        self.name = f"{kind}_step"
        self.recorders = recorders
        self.thread = None
        make = f"make_{kind}_function"
        # One of the user's may look its step up when it is called.
        self.late = make in vars(model) or (
            getattr(type(model), make) is not getattr(keras.Model, make)
        )
        with self._in_place():
            self.function = _make(model, kind)

    def __call__(self, iterator):
        self.thread = threading.get_ident()
        try:
            with self._in_place() if self.late else contextlib.nullcontext():
                return self.function(iterator)
        finally:
            self.thread = None

    @contextlib.contextmanager
    def _in_place(self):
        """Puts the measured step where the model has its own."""
        attributes = vars(self.model)
        step, own = getattr(self.model, self.name), attributes.get(self.name)

        def hooked_step(data):
            with contextlib.ExitStack() as stack:
                if self._is_called():
                    for recorder in self.recorders:
                        stack.enter_context(recorder.reading(whole=True))
                return step(data)

        attributes[self.name] = hooked_step
        try:
            yield
        finally:
            del attributes[self.name]
            if own is not None:
                attributes[self.name] = own

    def _is_called(self):
        """Whether this thread calls this function, or is a replica of one that does."""
        if self.model.distribute_strategy.num_replicas_in_sync > 1:
            return self.thread is not None
        return self.thread == threading.get_ident()


def _make(model, kind):
    """Returns a new step function of the model, and leaves the present one."""
    attributes, name = vars(model), f"{kind}_function"
    make = getattr(model, f"make_{kind}_function")
    parameters = inspect.signature(make).parameters.values()
    force = any(p.name == "force" or p.kind is p.VAR_KEYWORD for p in parameters)
    before = attributes[name]
    if not force:  # Such an override makes one where there is none.
        attributes[name] = None
    try:
        made = make(force=True) if force else make()
        now = attributes[name]
        return made if now is None or now is before else now
    finally:
        attributes[name] = before


def _origin(function):
    """Something that functions share if the same lines of code made them."""
    function = getattr(function, "python_function", function)
    return getattr(function, "__code__", type(function))
