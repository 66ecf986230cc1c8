"""`replace_dropout`: Sparseout in the place of Dropout."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

from keras_sparseout.layers.sparseout import Sparseout
from keras_sparseout.layers.spatial_sparseout import (
    SpatialSparseout1D,
    SpatialSparseout2D,
    SpatialSparseout3D,
)
from keras_sparseout.measure import layer_selection
from keras_sparseout.models.copying.layer_copies import config_of
from keras_sparseout.models.copying.model_graphs import (
    check_is_model,
    check_model,
    inside,
)
from keras_sparseout.models.copying.rebuilding import rebuild
from keras_sparseout.models.copying.steps import Change
from keras_sparseout.utils import validation

_BECOMES: dict[type, type[Sparseout]] = {
    keras.layers.Dropout: Sparseout,
    keras.layers.SpatialDropout1D: SpatialSparseout1D,
    keras.layers.SpatialDropout2D: SpatialSparseout2D,
    keras.layers.SpatialDropout3D: SpatialSparseout3D,
}
# Noise that is no Dropout: these stay.
_OTHERS = (
    keras.layers.GaussianDropout,
    keras.layers.AlphaDropout,
    keras.layers.GaussianNoise,
)
# Rates that other layers of Keras have.
_RATES = ("dropout", "recurrent_dropout")


class DropoutPlace(NamedTuple):
    """A place in a model where activations are dropped, or get other noise.

    Attributes:
        name: Path of the layer in the model, such as "encoder/dropout".
        kind: Name of its class.
        rates: The rates that are not 0, by name. A Dropout layer has its rate always.
        becomes: Name of the class that takes its place, None if it stays.
        why: Why it stays, empty if it does not.
    """

    name: str
    kind: str
    rates: dict[str, float]
    becomes: str | None
    why: str


def find_dropout(model: keras.Model) -> list[DropoutPlace]:
    """Lists where a model drops activations, and what `replace_dropout` does there.

    Args:
        model: Keras model. In a subclassed model nothing can be replaced.

    Returns:
        List of named tuples, in the order of the model: the path `name`, the class
        `kind`, the `rates` as a dict, `becomes` (the class that takes its place, None
        if it stays) and `why` it stays.

    Raises:
        ValueError: if `model` is no Keras model.

    Example:

    >>> model = keras.Sequential(
    ...     [
    ...         keras.Input((8, 3)),
    ...         keras.layers.LSTM(4, dropout=0.2, name="lstm"),
    ...         keras.layers.Dropout(0.5, name="drop"),
    ...     ]
    ... )
    >>> for place in keras_sparseout.models.find_dropout(model):
    ...     print(place.name, place.rates, place.becomes)
    lstm {'dropout': 0.2} None
    drop {'rate': 0.5} Sparseout
    """
    check_is_model(model)
    return [place for place, _ in _places(model)]


def replace_dropout(
    model: keras.Model, q: float = 2.0, *, adjustable: bool = False, verbose: int = 1
) -> keras.Model:
    """Returns a copy of a model with Sparseout in the place of Dropout.

    `Dropout` becomes `Sparseout`, `SpatialDropout1D`, `2D` and `3D` become
    `SpatialSparseout1D`, `2D` and `3D`, with the same names, rates, noise shapes and
    seeds. All else is copied, as `insert` does it. Predictions stay the same.

    What stays: `GaussianDropout`, `AlphaDropout` and `GaussianNoise`, which are other
    noise. The rates of recurrent layers and of attention (`dropout`,
    `recurrent_dropout`) and what a custom layer makes in its own code are out of reach.
    It prints all of them; `find_dropout` returns them.

    Args:
        model: Functional or Sequential model, built or not, with models of these kinds
            inside.
        q: Exponent of Sparseout, a finite number >= 0; 2 is Dropout.
        adjustable: Whether `rate` and `q` of the new layers are variables.
        verbose: 1 prints what becomes of each place, 0 nothing.

    Returns:
        The new model, a copy if it has no Dropout.

    Raises:
        ValueError: if `q` is out of range, `model` is a subclassed model, or one of its
            layers can't be made again from its config.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((8,)), keras.layers.Dropout(0.5, name="drop")]
    ... )
    >>> sparse = keras_sparseout.models.replace_dropout(model, q=1.5)
    replace_dropout
    drop  Dropout  rate 0.5  becomes Sparseout
    >>> sparse.get_layer("drop").q
    1.5
    """
    check_model(model)
    q = validation.check_q(q)
    validation.check_bool("adjustable", adjustable)
    changes, found = [], []
    for place, layer in _places(model):
        found.append(place)
        if place.becomes is not None:
            new = _in_place_of(layer, q, adjustable)
            changes.append(Change(layer, replacement=new))
    if verbose:
        print(_text(found))
    return rebuild(model, changes)


def _places(
    model: keras.Model,
) -> Iterator[tuple[DropoutPlace, keras.layers.Layer]]:
    """Yields each place, with its layer."""
    reached = _reached(model)
    listed: list[str] = []
    for watched in layer_selection.all_layers(model):
        name, layer = watched.name, watched.layer
        # Its parts have its rates.
        if any(name.startswith(around + "/") for around in listed):
            continue
        kind, rates = type(layer).__name__, _rates(layer)
        if isinstance(layer, tuple(_BECOMES)):
            becomes: str | None = None
            if type(layer) not in _BECOMES:
                why = "a class of its own"
            elif id(layer) not in reached:
                around = name.rpartition("/")[0] or "the model"
                why = f"in the code of {around}, out of reach"
            else:
                becomes, why = _BECOMES[type(layer)].__name__, ""
            yield DropoutPlace(name, kind, rates, becomes, why), layer
        elif isinstance(layer, _OTHERS):
            yield DropoutPlace(name, kind, rates, None, "other noise"), layer
        elif rates:
            listed.append(name)
            yield (
                DropoutPlace(name, kind, rates, None, "its own rate, out of reach"),
                layer,
            )


def _reached(model):
    """The ids of the layers that can be replaced."""
    reached: set[int] = set()

    def visit(layer: keras.layers.Layer) -> None:
        for part in inside(layer):
            if id(part) not in reached:
                reached.add(id(part))
                visit(part)

    visit(model)
    return reached


def _rates(layer):
    """The rates of a layer, by name."""
    if isinstance(layer, (*_BECOMES, *_OTHERS)):
        names = ("rate", "stddev")
        return {n: getattr(layer, n) for n in names if hasattr(layer, n)}
    try:
        config = config_of(layer)
    except Exception:  # Whatever a layer raises that has no config.
        return {}
    rates = {name: config.get(name) for name in _RATES}
    return {name: rate for name, rate in rates.items() if _is_rate(rate)}


def _is_rate(value):
    return isinstance(value, float) and value > 0


def _in_place_of(layer, q, adjustable):
    """Makes the Sparseout layer for a Dropout layer of Keras."""
    settings: dict[str, Any] = {
        "name": layer.name,
        "dtype": layer.dtype_policy,
        "activity_regularizer": layer.activity_regularizer,
        "adjustable": adjustable,
    }
    config = layer.get_config()
    settings |= {
        name: config[name]
        for name in ("seed", "noise_shape", "data_format")
        if name in config
    }
    return _BECOMES[type(layer)](layer.rate, q, **settings)


def _text(found):
    if not found:
        return "replace_dropout: the model has no Dropout layer."
    rows = []
    for place in found:
        rates = ", ".join(f"{name} {rate:g}" for name, rate in place.rates.items())
        end = f"becomes {place.becomes}" if place.becomes else f"stays: {place.why}"
        rows.append((place.name, place.kind, rates, end))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(["replace_dropout", *(line.rstrip() for line in lines)])
