"""Layers that only look rows up in a table, so that only these rows need noise."""

from typing import Any

import keras
from keras import ops

from keras_sparseout.backend import tensors
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Tensor


def is_lookup(layer: keras.layers.Layer, inputs: Any) -> bool:
    """Whether a call of `layer` looks `inputs` up in its `embeddings`, and no more.

    That is so for `keras.layers.Embedding`, but not for a subclass with a `call` of its
    own, one that something watches, or one that is quantized, or has LoRA or an
    activity regularizer. `inputs` must be dense, and of a known rank.
    """
    if not isinstance(layer, keras.layers.Embedding):
        return False
    kinds = (keras.layers.Embedding, keras.layers.ReversibleEmbedding)
    return (
        getattr(layer.call, "__func__", None) in [kind.call for kind in kinds]
        and layer.quantization_mode is None
        and not layer.lora_enabled
        and layer.activity_regularizer is None
        and not (tensors.is_ragged(inputs) or tensors.is_sparse(inputs))
        and not (ops.is_tensor(inputs) and validation.shape_of(inputs) is None)
    )


def whole_numbers(inputs: Any) -> Tensor:
    """Returns `inputs` as `keras.layers.Embedding` reads them: int32 or int64."""
    ids = ops.convert_to_tensor(inputs)
    if keras.backend.standardize_dtype(ids.dtype) in ("int32", "int64"):
        return ids
    return ops.cast(ids, "int32")
