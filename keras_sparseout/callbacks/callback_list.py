"""The list that calls a callback: which callbacks are in it, and its last place."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, Literal, TypeAlias

import keras

# They read the logs of an epoch.
_LOG_READERS = (
    keras.callbacks.CSVLogger,
    keras.callbacks.EarlyStopping,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.TensorBoard,
)

Kind: TypeAlias = Literal["train", "test"]
Logs: TypeAlias = dict[str, Any] | None


def callbacks_in_list() -> list[keras.callbacks.Callback]:
    """Returns the callbacks that `fit` was given, in the order in which it calls them.

    Callbacks of a list inside the list are among them. Call it from a method of a
    callback that `fit` calls. If no list called that method, the result is empty.
    """
    outermost = calling_list()
    return [] if outermost is None else list(_flattened(outermost))


def calling_list() -> keras.callbacks.CallbackList | None:
    """Returns the list of callbacks that called, None if none did.

    It looks for the list on the call stack, since Keras gives a callback no other way
    to its list:

    - `set_model` and `set_params` pass on the model and a dict, and the model keeps no
      list. `model.history` is in the list too, but does not know the list either.
    - Callbacks that register themselves in `on_train_begin` learn of each other, but
      not of a CSVLogger or an EarlyStopping. They would also find those of a training
      that failed, for which Keras calls no `on_train_end`.
    - At the first `on_epoch_end` it is too late to see which keys the others got. A
      whole epoch is spent then, and CSVLogger has written its columns.
    """
    frame: FrameType | None = inspect.currentframe()
    outermost = None
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.Model):
            break  # Its `fit`. A list further out belongs to another `fit`.
        if isinstance(caller, keras.callbacks.CallbackList):
            outermost = caller
        frame = frame.f_back
    return outermost


def warn_if_late(
    callback: keras.callbacks.Callback, in_list: Sequence[keras.callbacks.Callback]
) -> None:
    """Warns if callbacks that read the logs come before `callback` in the list."""
    if callback not in in_list:  # Another callback passes calls on.
        return
    earlier = in_list[: in_list.index(callback)]
    late = [type(c).__name__ for c in earlier if isinstance(c, _LOG_READERS)]
    if late:
        name = type(callback).__name__
        warnings.warn(
            f"{', '.join(late)} will not see the figures of {name}, which "
            f"comes after in `callbacks`. Put {name} first.",
            stacklevel=2,
        )


def call_last(
    callback: keras.callbacks.Callback,
    kind: Kind,
    begin_batch: Callable[[Kind], None],
    end: Callable[[], None] | None = None,
) -> bool:
    """Has `begin_batch` called at each batch's start, after all callbacks in the list.

    `begin_batch` is for changes to the model that the next step undoes: if a callback
    raised after such a change, the model would keep it. Call this from a method of
    `callback` that `fit` calls.

    Args:
        callback: The callback that changes the model.
        kind: What begins, "train" or "test". The list is restored when that ends.
        begin_batch: Function of the kind of the step.
        end: Function that is called after all callbacks when that ends, or None.

    Returns:
        Whether there is a list. Without one `callback` has to call these itself.
    """
    in_list = calling_list()
    if in_list is None:
        return False
    others = [c for c in in_list.callbacks if not _is_last(c, callback)]
    # The one that stands there during training serves its validation too.
    if kind == "train" or len(others) == len(in_list.callbacks):
        # A new list object: Keras may be going through the present one.
        last = _LastInList(callback, kind, begin_batch, end, in_list)
        in_list.callbacks = [*others, last]
    return True


def _is_last(
    candidate: keras.callbacks.Callback, owner: keras.callbacks.Callback
) -> bool:
    return isinstance(candidate, _LastInList) and candidate.owner is owner


class _LastInList(keras.callbacks.Callback):
    """Stands last in a list of callbacks until training or testing ends."""

    def __init__(
        self,
        owner: keras.callbacks.Callback,
        kind: Kind,
        begin_batch: Callable[[Kind], None],
        end: Callable[[], None] | None,
        in_list: keras.callbacks.CallbackList,
    ) -> None:
        super().__init__()
        self.owner = owner
        self.kind = kind
        self.begin_batch = begin_batch
        self.end = end
        self.in_list = in_list

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        self.begin_batch("train")

    def on_test_batch_begin(self, batch: int, logs: Logs = None) -> None:
        self.begin_batch("test")

    def on_train_end(self, logs: Logs = None) -> None:
        if self.kind == "train":
            self._leave()

    def on_test_end(self, logs: Logs = None) -> None:
        if self.kind == "test":
            self._leave()

    def _leave(self) -> None:
        self.in_list.callbacks = [c for c in self.in_list.callbacks if c is not self]
        if self.end is not None:
            self.end()


def _flattened(
    in_list: keras.callbacks.CallbackList,
) -> Iterator[keras.callbacks.Callback]:
    for callback in in_list.callbacks:
        if isinstance(callback, keras.callbacks.CallbackList):
            yield from _flattened(callback)
        else:
            yield callback
