"""The place of a callback in the list that `fit` was given."""

import inspect
import warnings

import keras


def warn_if_late(callback):
    """Warns if callbacks that read the logs come before `callback` in the list.

    To be called from one of its methods, as `fit` calls it.
    """
    readers = (
        keras.callbacks.CSVLogger,
        keras.callbacks.EarlyStopping,
        keras.callbacks.ModelCheckpoint,
        keras.callbacks.ReduceLROnPlateau,
        keras.callbacks.TensorBoard,
    )
    callers = _list_that_calls()
    if callers is None or callback not in callers.callbacks:
        return  # Another callback passes calls on.
    earlier = callers.callbacks[: callers.callbacks.index(callback)]
    late = [type(c).__name__ for c in earlier if isinstance(c, readers)]
    if late:
        name = type(callback).__name__
        warnings.warn(
            f"{', '.join(late)} will not see the figures of {name}, which "
            f"comes after in `callbacks`. Put {name} first.",
            stacklevel=2,
        )


def _list_that_calls():
    # A callback is not told of the list it is in; the list is what calls it.
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            return caller
        frame = frame.f_back
    return None
