"""The callbacks of one `fit`: their order, their log keys, their copies."""

import copy
import csv
import inspect
import warnings

import keras
import tensorflow as tf

from keras_sparseout.utils import validation


def callbacks_beside(callback):
    """Returns the callbacks that `fit` was given with `callback`, that one among them.

    They are in the order in which they are called, those of a list inside a list too.
    To be called from a method of the callback, as `fit` calls it. Empty if no list
    called it.
    """
    around = list_around()
    return [] if around is None else list(_flat(around))


def list_around():
    """Returns the list of callbacks that called, the outermost; None without one."""
    # A callback is not told of the list it is in; the list is what calls it.
    frame, outermost = inspect.currentframe(), None
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.Model):
            break  # Its fit; a list further out is that of another fit.
        if isinstance(caller, keras.callbacks.CallbackList):
            outermost = caller
        frame = frame.f_back
    return outermost


def warn_if_late(callback, beside):
    """Warns if callbacks that read the logs come before `callback` in `beside`."""
    readers = (
        keras.callbacks.CSVLogger,
        keras.callbacks.EarlyStopping,
        keras.callbacks.ModelCheckpoint,
        keras.callbacks.ReduceLROnPlateau,
        keras.callbacks.TensorBoard,
    )
    if callback not in beside:  # Another callback passes calls on.
        return
    earlier = beside[: beside.index(callback)]
    late = [type(c).__name__ for c in earlier if isinstance(c, readers)]
    if late:
        name = type(callback).__name__
        warnings.warn(
            f"{', '.join(late)} will not see the figures of {name}, which "
            f"comes after in `callbacks`. Put {name} first.",
            stacklevel=2,
        )


def check_apart(callback, beside, *, begun=False):
    """Raises if `callback` would write log keys of another callback of this package.

    Args:
        callback: The callback.
        beside: The callbacks that `fit` was given.
        begun: Whether all of them know their layers; otherwise those before it do.
    """
    keys = callback.log_keys()
    if not begun and callback in beside:
        beside = beside[: beside.index(callback)]
    for other in _with_keys(beside):
        shared = sorted(keys & other.log_keys()) if other is not callback else ()
        if shared:
            one, two = type(callback).__name__, type(other).__name__
            metric = shared[0].removeprefix("val_").split("/")[0]
            both = validation.some_of(shared)
            raise ValueError(
                "`callbacks` must have log keys of their own, or one replaces the "
                f"figures of the other. Received: {two} and {one}, which both write "
                f"{both}. Give a tracker's metrics other names, for example "
                f'metrics={{"other_{metric}": "{metric}"}}, and controllers and '
                "schedulers different layers."
            )


def check_free(callback, logs):
    """Raises if the model itself has metrics under the log keys of `callback`."""
    own = {key.removeprefix("val_") for key in callback.log_keys()}
    taken = sorted(own & {key.removeprefix("val_") for key in logs or ()})
    if taken:
        name, both = taken[0].split("/")[0], validation.some_of(taken)
        raise ValueError(
            "`metrics` must have other names than the model's own metrics, whose "
            f"figures they would replace in the logs. Received: {both} in "
            f"{type(callback).__name__} and in the model. Give another name, for "
            f'example metrics={{"activation_{name}": "{name}"}} in the callback.'
        )


def keep_columns(callback, beside):
    """Makes CSVLoggers have a column for every key, whatever epoch it comes in first.

    Keras takes its columns from the first epoch, and adds those of validation only if
    that epoch has no key of validation at all: one of ours would be enough to lose
    "val_loss". To be called at the end of an epoch: a fit may be broken off before,
    and a logger must not keep what is put into it.
    """
    for place, logger in enumerate(beside):
        if isinstance(logger, keras.callbacks.CSVLogger) and logger.keys is None:
            ours = _with_keys(beside[:place])
            if callback not in beside:
                ours.append(callback)
            vars(logger)["on_epoch_end"] = _FirstRow(logger, ours)


def copy_of(callback, memo, shared):
    """Returns a deep copy of a callback, that is in no training run.

    Args:
        callback: A callback with a method `_forget`, which sets what belongs to a run.
        memo: That of `__deepcopy__`.
        shared: Names of attributes to share. Layers and data are the user's, and Keras
            would make copies of them that are no longer the model's.
    """
    copied = object.__new__(type(callback))
    memo[id(callback)] = copied
    keras.callbacks.Callback.__init__(copied)
    copied._forget()
    fresh = set(vars(copied))
    for name, value in vars(callback).items():
        if name not in fresh:
            same = name in shared
            vars(copied)[name] = value if same else copy.deepcopy(value, memo)
    return copied


class _FirstRow:
    """Stands in for a CSVLogger's `on_epoch_end` once, to set its columns."""

    def __init__(self, logger, ours):
        own = vars(logger).get("on_epoch_end")
        # Another callback of ours was here before.
        self.own = own.own if isinstance(own, _FirstRow) else own
        self.logger = logger
        self.ours = ours

    def __call__(self, epoch, logs=None):
        del vars(self.logger)["on_epoch_end"]
        if self.own is not None:
            vars(self.logger)["on_epoch_end"] = self.own
        if self.logger.keys is None and logs:
            self.logger.keys = self._columns(logs)
        self.logger.on_epoch_end(epoch, logs)

    def _columns(self, logs):
        ours = {key for callback in self.ours for key in callback.log_keys()}
        keys = sorted(logs)
        # What Keras does by itself, and what it would do without our keys.
        for twins_of in (keys, [key for key in keys if key not in ours]):
            if not any(key.startswith("val_") for key in twins_of):
                keys = _joined(keys, [f"val_{key}" for key in twins_of])
        return _joined(self._header(), _joined(keys, sorted(ours)))

    def _header(self):
        """Returns the columns of the file that is written on, if there are any."""
        if not self.logger.append or self.logger.append_header:
            return []
        with tf.io.gfile.GFile(self.logger.filename) as file:
            header = next(csv.reader(file, delimiter=self.logger.sep))
        return header[1:] if header[:1] == ["epoch"] else []


def _flat(callback_list):
    for callback in callback_list.callbacks:
        if isinstance(callback, keras.callbacks.CallbackList):
            yield from _flat(callback)
        else:
            yield callback


def _with_keys(callbacks):
    return [callback for callback in callbacks if hasattr(callback, "log_keys")]


def _joined(first, others):
    return [*first, *(key for key in others if key not in first)]
