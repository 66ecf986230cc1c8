"""The types in the signatures of all public names."""

import inspect
import types

import pytest

import keras_sparseout
from keras_sparseout.layers.adjustable import Knob

FOLDERS = ("metrics", "ops", "plots")


def public_values():
    """Yields each public function and class, with its name."""
    for name in keras_sparseout.__all__:
        value = getattr(keras_sparseout, name)
        if not isinstance(value, types.ModuleType):
            yield name, value
    for folder in FOLDERS:
        module = getattr(keras_sparseout, folder)
        for name in module.__all__:
            yield f"{folder}.{name}", getattr(module, name)


def functions_of(name, value, package="keras_sparseout"):
    """Yields a function, or the methods and properties of a class that are ours.

    These are the public ones, and those with a name such as `__init__`.
    """
    if not inspect.isclass(value):
        yield name, value
        return
    for attribute in sorted(dir(value)):
        owner = next((c for c in value.__mro__ if attribute in vars(c)), object)
        is_private = attribute.startswith("_") and not attribute.startswith("__")
        if owner.__module__.startswith(package) and not is_private:
            for function in functions_in(vars(owner)[attribute]):
                yield f"{name}.{attribute}", function


def functions_in(member):
    """Returns the functions behind an attribute of a class."""
    if isinstance(member, property):
        return [f for f in (member.fget, member.fset) if f is not None]
    if isinstance(member, Knob):
        return [Knob.__get__, Knob.__set__]
    member = getattr(member, "__func__", member)  # A class method is around one.
    return [member] if inspect.isfunction(member) else []


def untyped(name, value, package="keras_sparseout"):
    """Yields the name of each parameter, and return value, without a type."""
    for place, function in functions_of(name, value, package):
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        if place != name and parameters and parameters[0].name in ("self", "cls"):
            del parameters[0]
        for parameter in parameters:
            if parameter.annotation is inspect.Parameter.empty:
                yield f"{place}({parameter.name})"
        if signature.return_annotation is inspect.Signature.empty:
            yield f"{place} -> ?"


def test_every_public_signature_has_types():
    names = dict(public_values())
    found = [place for name, v in names.items() for place, _ in functions_of(name, v)]
    assert len(found) > 200
    for place in ("Sparseout.__init__", "Shakeout.c", "metrics.hoyer", "ops.sparseout"):
        assert place in found
    assert [u for name, value in names.items() for u in untyped(name, value)] == []


def bare(x, *, axis: int = -1):
    return x


class Half:
    def __init__(self, rate: float):
        self.rate = rate

    @property
    def units(self):
        return 1

    @classmethod
    def make(cls, config) -> "Half":
        return cls(**config)

    def call(self, inputs: float, **kwargs) -> float:
        return inputs

    def whole(self, inputs: float) -> float:
        return inputs

    def _private(self, x):
        return x


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (bare, ["v(x)", "v -> ?"]),
        (
            Half,
            ["v.__init__ -> ?", "v.call(kwargs)", "v.make(config)", "v.units -> ?"],
        ),
    ],
)
def test_what_has_no_types_is_found(value, found):
    assert list(untyped("v", value, package=__name__)) == found
