"""The layers of a model: which ones the table lists, and which ones are read."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Literal

import keras

from keras_sparseout.measure import layer_selection
from keras_sparseout.measure.layer_selection import LayerChoice
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.summary import layer_macs


class ModelLayers:
    """The layers of a model.

    Args:
        model: A built Keras model.
        layers: Those to list, as for `layer_selection.select`, None for all.
        where: The side to measure, None for the default of each layer.

    Attributes:
        all: Dict of `WatchedLayer` by name.
        listed: Those that the table may list.
        named: Whether the user named them.
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Sequence[LayerChoice] | None,
        where: Literal["input", "output"] | None,
    ) -> None:
        self.all = {w.name: w for w in layer_selection.all_layers(model)}
        self.named = layers is not None
        if self.named:
            listed = layer_selection.select(model, layers, where)
        else:
            listed = [
                dataclasses.replace(w, side=where or w.side) for w in self.all.values()
            ]
        self.listed = {w.name: w for w in listed}
        self._inside = {
            name: [v.layer for v in layer_selection.all_layers(w.layer)]
            for name, w in self.all.items()
        }

    def to_read(self) -> list[WatchedLayer]:
        """Returns the listed layers, and both sides of layers with products."""
        read = list(self.listed.values())
        for name, w in self.all.items():
            if layer_macs.is_countable(w.layer):
                read.append(dataclasses.replace(w, side="input"))
            if any(map(_has_products, (w.layer, *self._inside[name]))):
                read.append(dataclasses.replace(w, side="output"))
        return list(dict.fromkeys(read))

    def barriers(self, called: Collection[str]) -> set[str]:
        """Returns the names of the layers that return new activations.

        These have products, of their own or in layers inside them that can't be read.

        Args:
            called: Names of the layers that could be read.
        """
        unread = {id(w.layer) for n, w in self.all.items() if n not in called}
        return {
            name
            for name, w in self.all.items()
            if _has_products(w.layer)
            or any(_has_products(v) and id(v) in unread for v in self._inside[name])
        }

    def has_row(self, name: str, measured: Collection[str]) -> bool:
        """Whether the table has a row for a layer, and not only for those inside it.

        Args:
            name: Name of the layer.
            measured: Names of all layers that were measured.
        """
        # A Dense layer has one even if its activation is a layer.
        if self.named or _has_products(self.all[name].layer):
            return True
        rows = {id(self.listed[n].layer) for n in measured}
        return not any(id(layer) in rows for layer in self._inside[name])


def _has_products(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, layer_macs.WITH_PRODUCTS)
