"""A layer to measure, with its path in the model and the side to read."""

import dataclasses
from typing import Any, Literal, TypeAlias

import keras

from keras_sparseout.layers.activation_penalty import ActivationPenalty
from keras_sparseout.layers.target_sparsity import TargetSparsity

# "outputs" is for a whole model: all that it returns.
Side: TypeAlias = Literal["input", "output", "outputs"]

# Whatever comes before their units, they have no data format.
_UNITS_LAST = (
    *(keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Embedding),
    *(keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention),
    *(keras.layers.RNN, ActivationPenalty, TargetSparsity),
)
# If their argument `axis` is one dimension, their units are there.
_NORMALIZED = (
    *(keras.layers.BatchNormalization, keras.layers.LayerNormalization),
    *(keras.layers.GroupNormalization, keras.layers.UnitNormalization),
    keras.layers.RMSNormalization,
)
_CONV_LSTM = (
    *(keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D),
)


@dataclasses.dataclass(frozen=True)
class WatchedLayer:
    """A layer to measure.

    Attributes:
        name: Its path in the model, such as "encoder/dense". Figures have this name.
        layer: The layer.
        side: What is measured, its "input" or its "output".
        is_part: Whether it is only a part of another layer, such as an RNN's cell.
    """

    name: str
    layer: keras.layers.Layer
    side: Side
    is_part: bool

    def number_of_units(self) -> int | None:
        """The number of units, or channels, of the activations; None if unknown.

        It comes from the shape that the layer was built with, since layers of
        subclassed models have no `input` and no `output`.
        """
        config = self.layer.get_build_config() or {}
        shapes = config.get("input_shape")
        shapes = shapes or list(config.get("shapes_dict", {}).values())
        if shapes and self.side == "output":
            try:
                shapes = self.layer.compute_output_shape(shapes)
            except Exception:  # Whatever a layer raises that does not know.
                return None
        shapes = _first(shapes)
        if not shapes or len(shapes) < 2:
            return None
        return shapes[self.units_axis(len(shapes))]

    def units_axis(self, rank: int, mask: Any = None) -> int:
        """Returns the dimension of the units of activations of this rank.

        It is -1, or that of the channels where these come before the positions. A
        layer without a data format of its own, such as a ReLU, has that of Keras, if
        its activations are maps or volumes. What a mask covers are timesteps, also
        where a layer normalizes along them.
        """
        axis = _units_axis(self.layer, rank)
        return -1 if mask is not None and axis < len(mask.shape) else axis


def _units_axis(layer: keras.layers.Layer, rank: int) -> int:
    if isinstance(layer, keras.layers.TimeDistributed):
        axis = _units_axis(layer.layer, rank - 1)
        return axis if axis < 0 else axis + 1
    if isinstance(layer, keras.layers.Bidirectional):
        return _units_axis(layer.forward_layer, rank)
    if isinstance(layer, keras.layers.Wrapper):
        return _units_axis(layer.layer, rank)
    axes = keras.tree.flatten(layer.axis) if isinstance(layer, _NORMALIZED) else []
    if rank and len(axes) == 1:
        axis = axes[0] % rank
        return axis if 0 < axis < rank - 1 else -1
    data_format = getattr(layer, "data_format", None)
    if data_format is None and rank in (4, 5) and not isinstance(layer, _UNITS_LAST):
        data_format = keras.config.image_data_format()
    if rank < 3 or data_format != "channels_first":
        return -1
    # The timesteps come before the channels, unless only the last one is returned.
    return rank - 1 - len(layer.kernel_size) if isinstance(layer, _CONV_LSTM) else 1


def _first(shapes: Any) -> Any:
    """Returns the first of nested shapes, of dicts that of the first key in order."""
    while shapes:
        if isinstance(shapes, dict):
            shapes = shapes[min(shapes)]
        elif isinstance(shapes[0], (dict, list, tuple)):
            shapes = shapes[0]
        else:
            break
    return shapes
