"""Copies what a layer has learned, and what it was set to, into its copy."""

import itertools
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping

import keras

from keras_sparseout.backend import variables
from keras_sparseout.layers import nested_layers

_AUTOMATIC = re.compile(r"variable(_\d+)?")


class StateCopies:
    """Copies states between layers, and knows which variable became which.

    Args:
        inner: Function that returns the layer inside an old layer whose place it takes,
            or None if the old layer stays.
        made: Pairs of a layer and its copy, by the id of the layer. Layers inside these
            copies have other pairs, by their places.

    Attributes:
        copied: Pairs of an old and a new variable, by the id of the old one.
    """

    def __init__(
        self,
        inner: Callable[[keras.layers.Layer], keras.layers.Layer | None],
        made: Mapping[int, tuple[keras.layers.Layer, keras.layers.Layer]],
    ) -> None:
        self._inner = inner
        self._made = made
        self._done: set[tuple[int, int]] = set()
        self.copied: dict[int, tuple[keras.Variable, keras.Variable]] = {}

    def copy(self, old: keras.layers.Layer, new: keras.layers.Layer) -> None:
        """Copies the state of `old`, and of the layers inside it, into `new`.

        These are the weights, the states of seeds, what is kept in files beside the
        weights (vocabularies, statistics), and what is trainable.

        Raises:
            ValueError: if `new` has other variables than `old`.
        """
        inside = self._inner(old)
        if inside is not None:
            self.copy(inside, new)
            return
        if (id(old), id(new)) in self._done:
            return
        self._done.add((id(old), id(new)))
        if old.trainable != new.trainable:
            new.trainable = old.trainable
        _build_as(old, new)
        if type(old) is type(new) and old.built:
            _check_shapes(old, new)
            _copy_files(old, new)
        for child, its_copy in self._children(old, new):
            self.copy(child, its_copy)
        self._copy_variables(old, new)

    def _children(
        self, old: keras.layers.Layer, new: keras.layers.Layer
    ) -> Iterator[tuple[keras.layers.Layer, keras.layers.Layer]]:
        """Yields the layers directly inside `old` with those in `new`."""
        if _has_graph(old):
            if id(old) in self._made and self._made[id(old)][1] is new:
                for layer in old.layers:
                    kept = self._innermost(layer)
                    if id(kept) in self._made:
                        yield layer, self._made[id(kept)][1]
            else:
                yield from self._alike(old.layers, new.layers)
            return
        # Their own names may have new numbers.
        others = nested_layers.places(new)
        found: set[int] = set()
        for place, layer in nested_layers.places(old).items():
            if place in others and id(layer) not in found:
                found.add(id(layer))
                yield layer, others[place]

    def _alike(self, layers, others):
        """Yields the layers of a model with those of one that was made alike."""
        kept = [self._innermost(layer) for layer in layers]
        named = {layer.name: layer for layer in others}
        if {layer.name for layer in kept} != set(named):
            # The code of a layer makes them: names that Keras gives have new numbers.
            kinds = [[type(layer) for layer in each] for each in (kept, others)]
            if kinds[0] == kinds[1]:
                yield from zip(layers, others, strict=True)
                return
        for layer, its_own in zip(layers, kept, strict=True):
            if its_own.name in named:
                yield layer, named[its_own.name]

    def _innermost(self, layer):
        inside = self._inner(layer)
        return layer if inside is None else self._innermost(inside)

    def _copy_variables(self, old, new):
        mine, others = _named(_own_variables(old)), _named(_own_variables(new))
        if type(old) is not type(new):
            # Another class has other ones of its own: rates, seeds, some without names.
            by_name = dict(others)
            mine = [(name, v) for name, v in mine if v.name in by_name]
            others = [(name, by_name[name]) for name, _ in mine]
        names = {name for name, _ in mine}
        if len(names) == len(mine) and names == {name for name, _ in others}:
            # Keras quantizes a layer that is built in another order than a new one.
            by_name = dict(others)
            others = [(name, by_name[name]) for name, _ in mine]
        if [*map(_kind, mine)] != [*map(_kind, others)]:
            raise ValueError(
                "`model` must have layers that make their weights again from their "
                f"configs. Received: model with the layer {old.name!r} of class "
                f"{type(old).__name__}, which has {_text(mine)}. Made again it has "
                f"{_text(others)}. Build them in `__init__` or `build`, or give "
                f"{type(old).__name__} a `get_config` that has all its arguments."
            )
        for (_, variable), (_, its_copy) in zip(mine, others, strict=True):
            its_copy.assign(variable)
            if its_copy.trainable != variable.trainable:
                its_copy.trainable = variable.trainable
            self._note(variable, its_copy, old)

    def _note(self, variable, its_copy, layer):
        before = self.copied.setdefault(id(variable), (variable, its_copy))
        if before[1] is not its_copy:
            raise ValueError(
                "`model` must not have variables that two layers share, unless the "
                "configs of both have one layer. Received: model with "
                f"{variable.path!r}, which {layer.name!r} shares with another layer: "
                "their copies would be trained apart. Call one layer in both places, "
                "or return it from the `get_config` of what has it."
            )


def _has_graph(layer):
    return isinstance(layer, (keras.Function, keras.Sequential))


def _build_as(old, new):
    """Builds `new` as `old` was built, if nothing has called it yet."""
    if old.built and not new.built:
        config = old.get_build_config()
        if config:
            new.build_from_config(config)


def _check_shapes(old, new):
    """Raises if a variable of `new` has another shape than in `old`."""
    mine, others = _named(_own_variables(old)), _named(_own_variables(new))
    shapes = {name: v.shape for name, v in mine}
    if len(shapes) < len(mine):
        return
    for name, variable in others:
        shape = shapes.get(name, variable.shape)
        if tuple(shape) != tuple(variable.shape):
            raise ValueError(
                "`model` must have layers whose weights have the same shapes when they "
                f"are made again. Received: model with the layer {old.name!r} of class "
                f"{type(old).__name__}, whose {name} has the shape "
                f"{tuple(shape)}, and made again {tuple(variable.shape)}. Insert only "
                "layers that keep the shape of their input, and give layers of your "
                "own a `get_config` that returns all arguments of their `__init__`."
            )


def _copy_files(old, new):
    """Lets `new` load what `old` writes into files, where its class has a way."""
    base, own = keras.layers.Layer, type(old)
    if (own.save_own_variables, own.load_own_variables) != (
        base.save_own_variables,
        base.load_own_variables,
    ):
        store: dict[str, object] = {}
        old.save_own_variables(store)
        new.load_own_variables({k: variables.to_numpy(v) for k, v in store.items()})
    if hasattr(old, "save_assets") and hasattr(new, "load_assets"):
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)


def _own_variables(layer):
    """The variables of a layer that are not those of a layer inside it."""
    children = [child for child, _ in nested_layers.children(layer)]
    if isinstance(layer, keras.Model):
        children = [*children, *layer.layers]
    inside = {id(v) for child in children for v in child.variables}
    found = [v for v in layer.variables if id(v) not in inside]
    if isinstance(layer, keras.layers.RNN) and layer.stateful:
        # Keras does not count them among its variables.
        found += keras.tree.flatten(layer.states or [])
    return found


def _named(found):
    """Returns each variable with its name, numbered here where Keras numbers it.

    Keras counts variables without a name in all of the program: "variable_7".
    """
    numbers = itertools.count()
    return [
        (f"variable {next(numbers)}" if _AUTOMATIC.fullmatch(v.name) else v.name, v)
        for v in found
    ]


def _kind(named):
    name, variable = named
    return name, tuple(variable.shape), variable.dtype


def _text(found):
    texts = [f"{name} {tuple(v.shape)}" for name, v in found]
    return ", ".join(texts) or "no variables"
