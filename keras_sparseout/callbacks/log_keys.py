"""Checks that the log keys of a callback are no one else's."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeGuard

import keras

from keras_sparseout.utils import validation


class WithLogKeys(Protocol):
    """A callback of this package, which tells the keys that it may put into `logs`."""

    def log_keys(self) -> set[str]:
        """Returns the keys."""


def with_log_keys(
    callbacks: Iterable[keras.callbacks.Callback],
) -> list[WithLogKeys]:
    """Returns those of `callbacks` that tell their log keys."""
    return [callback for callback in callbacks if _has_log_keys(callback)]


def _has_log_keys(callback: Any) -> TypeGuard[WithLogKeys]:
    return hasattr(callback, "log_keys")


def probe_keys(callbacks: Iterable[keras.callbacks.Callback]) -> set[str]:
    """Returns the keys under which `callbacks` have figures of probe data."""
    keys: set[str] = set()
    return keys.union(*(c.probe_keys() for c in callbacks if hasattr(c, "probe_keys")))


def check_other_callbacks(
    callback: WithLogKeys,
    in_list: Sequence[keras.callbacks.Callback],
    *,
    begun: bool = False,
) -> None:
    """Raises if another callback of this package has log keys of `callback`.

    Args:
        callback: The callback.
        in_list: The callbacks that `fit` was given.
        begun: Whether all of them know their layers. Otherwise only those before
            `callback` do.
    """
    keys = callback.log_keys()
    if not begun and callback in in_list:
        in_list = in_list[: in_list.index(callback)]
    for other in with_log_keys(in_list):
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


def check_model(callback: WithLogKeys, logs: Mapping[str, Any] | None) -> None:
    """Raises if the model's own metrics, in `logs`, have log keys of `callback`."""
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
