"""A layer to measure, with its path in the model and the side to read."""

import dataclasses
from typing import Any, Literal, TypeAlias

import keras

# "outputs" is for a whole model: all that it returns.
Side: TypeAlias = Literal["input", "output", "outputs"]


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
        return shapes[1 if self.is_channels_first(len(shapes)) else -1]

    def is_channels_first(self, rank: int) -> bool:
        """Whether activations of this rank have their channels before the positions."""
        return rank > 2 and getattr(self.layer, "data_format", "") == "channels_first"


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
