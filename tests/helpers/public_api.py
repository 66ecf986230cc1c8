"""Every public name of the package with its signature, as lines of text.

python tests/helpers/public_api.py > tests/data/public_api.txt
"""

import inspect
import types

import keras_sparseout

_FOLDERS = ("metrics", "models", "ops", "plots")


def public_api():
    """Returns a line for each function, class and method, without annotations."""
    lines = []
    for name in keras_sparseout.__all__:
        value = getattr(keras_sparseout, name)
        if not isinstance(value, types.ModuleType):
            lines += _lines(name, value)
        elif name in _FOLDERS:
            for inner in value.__all__:
                lines += _lines(f"{name}.{inner}", getattr(value, inner))
    for name in keras_sparseout.masks.__all__:
        value = getattr(keras_sparseout.ops.masks, name)
        lines += _lines(f"ops.masks.{name}", value)
    return sorted(lines)


def _lines(name, value):
    yield f"{name}{_signature(value)}"
    if not inspect.isclass(value):
        return
    for attribute in sorted(dir(value)):
        member = inspect.getattr_static(value, attribute)
        member = getattr(member, "function", member)  # Of a WrappedCall.
        if attribute.startswith("_") or not _is_ours(value, attribute):
            continue
        if hasattr(member, "__set__"):  # A property, or a knob.
            yield f"{name}.{attribute}"
        elif inspect.isfunction(member):
            yield f"{name}.{attribute}{_signature(member)}"


def _is_ours(cls, attribute):
    owner = next(c for c in cls.__mro__ if attribute in vars(c))
    return owner.__module__.startswith("keras_sparseout")


def signature_of(function):
    """`inspect.signature`, on all versions of Python of classes that inherit too.

    Python 3.11.2 takes the signature of `__new__`, which Keras' layers inherit.
    """
    if not inspect.isclass(function):
        return inspect.signature(function)
    signature = inspect.signature(function.__init__)
    return signature.replace(parameters=[*signature.parameters.values()][1:])


def _signature(function):
    signature = signature_of(function)
    parameters = [
        p.replace(annotation=inspect.Parameter.empty)
        for p in signature.parameters.values()
    ]
    return signature.replace(
        parameters=parameters, return_annotation=inspect.Signature.empty
    )


if __name__ == "__main__":
    print("\n".join(public_api()))
