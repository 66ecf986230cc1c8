"""Arming a model's step when all other callbacks have begun the batch."""

import keras

from keras_sparseout.callbacks import callback_order


def after_all(callback, kind, arm):
    """Has `arm` called at the beginning of each batch, after all callbacks.

    If one of them raised after it, the model would keep what was armed. To be called
    from a method of `callback`, as `fit` calls it.

    Args:
        callback: The callback that arms.
        kind: What begins, "train" or "test": the list of callbacks is as it was when
            that ends.
        arm: Function of the kind of the step.

    Returns:
        Whether there is a list of callbacks; without one `callback` has to arm itself.
    """
    around = callback_order.list_around()
    if around is None:
        return False
    others = [c for c in around.callbacks if not _is_last(c, callback)]
    # The one of a fit serves its validation too.
    if kind == "train" or len(others) == len(around.callbacks):
        # A list of its own: Keras may be going through the present one.
        around.callbacks = [*others, _Last(callback, kind, arm, around)]
    return True


def not_begun(callback):
    """The error for a callback that is in no training, but is to measure a batch."""
    return ValueError(
        "`on_train_begin` must be called before the first batch, and before `watching` "
        f"is entered. Received: {type(callback).__name__} that is in no training. Call "
        "on_train_begin of keras.callbacks.CallbackList([callback], model=model) "
        "before."
    )


def _is_last(callback, owner):
    return isinstance(callback, _Last) and callback.owner is owner


class _Last(keras.callbacks.Callback):
    """Stands at the end of the list of callbacks, until what begins with it ends."""

    def __init__(self, owner, kind, arm, around):
        super().__init__()
        self.owner = owner
        self.kind = kind
        self.arm = arm
        self.around = around

    def on_train_batch_begin(self, batch, logs=None):
        self.arm("train")

    def on_test_batch_begin(self, batch, logs=None):
        self.arm("test")

    def on_train_end(self, logs=None):
        if self.kind == "train":
            self._leave()

    def on_test_end(self, logs=None):
        if self.kind == "test":
            self._leave()

    def _leave(self):
        self.around.callbacks = [c for c in self.around.callbacks if c is not self]
