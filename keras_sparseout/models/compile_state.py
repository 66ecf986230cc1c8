"""Compiles a copy of a model as the model was compiled, and copies its optimizer."""

from collections.abc import Mapping

import keras


def copy(
    old: keras.Model,
    new: keras.Model,
    copied: Mapping[int, tuple[keras.Variable, keras.Variable]],
) -> None:
    """Compiles `new` as `old` was compiled."""
    if old.compiled:
        new.compile_from_config(old.get_compile_config())
