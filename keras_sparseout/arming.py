"""Arming a model's step when all other callbacks have begun the batch."""

import keras

from keras_sparseout import order


def after_all(callback, arm):
    """Has `arm(kind)` called at the beginning of each batch, after all callbacks.

    If one of them raised after it, the model would keep what was armed. To be called
    from a method of `callback`, as `fit` calls it.

    Args:
        callback: The callback that arms.
        arm: Function of the kind of the step, "train" or "test".

    Returns:
        Whether there is a list of callbacks; without one `callback` has to arm itself.
    """
    around = order.list_around()
    if around is None:
        return False
    others = around.callbacks
    if not any(isinstance(c, _Last) and c.owner is callback for c in others):
        others.append(_Last(callback, arm))
    return True


def not_begun(callback):
    """The error for `watching` of a callback that is in no training."""
    return ValueError(
        "`watching` must be entered while the model is trained, between the calls of "
        f"on_train_begin and on_train_end. Received: {type(callback).__name__} that "
        "is in no training. Call on_train_begin of "
        "keras.callbacks.CallbackList([callback], model=model) before."
    )


class _Last(keras.callbacks.Callback):
    """Stands at the end of the list of callbacks."""

    def __init__(self, owner, arm):
        super().__init__()
        self.owner = owner
        self.arm = arm

    def on_train_batch_begin(self, batch, logs=None):
        self.arm("train")

    def on_test_batch_begin(self, batch, logs=None):
        self.arm("test")
