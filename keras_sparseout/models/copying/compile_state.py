"""Compiles a copy of a model as the model was compiled, and copies its optimizer."""

import types
import warnings
from collections.abc import Mapping
from typing import Any

import keras

from keras_sparseout.models.copying.clear_names import quiet_about_lambdas
from keras_sparseout.models.copying.layer_copies import custom_objects

# Old and new variables, by the id of the old one.
Copied = Mapping[int, tuple[keras.Variable, keras.Variable]]


def copy(
    old: keras.Model, new: keras.Model, copied: Copied, *, without_package: bool
) -> None:
    """Compiles `new` as `old` was compiled, and goes on with its optimizer's state.

    What the optimizer keeps for a variable is copied where the variable was copied. The
    rest starts at its first value.

    Args:
        old: A model, compiled or not.
        new: The model that was made from it.
        copied: Pairs of an old and a new variable, by the id of the old one.
        without_package: Whether metrics of this package are left out.

    Warns:
        UserWarning: if `new` can't be compiled as `old` was.
    """
    if not old.compiled:
        return
    try:
        compile_like(old, new, without_package=without_package)
    except Exception as error:
        warnings.warn(
            f"The copy of {old.name!r} is not compiled, since Keras can't make again "
            f"what {old.name!r} was compiled with ({type(error).__name__}: {error}). "
            "Compile it.",
            stacklevel=2,
        )
        return
    if old.optimizer is not None and new.optimizer is not None:
        copy_optimizer(old, new, copied)


def metrics_of_package(model: keras.Model) -> list[str]:
    """Returns the names of the metrics of this package that a model has.

    There are none where Keras can't write what the model was compiled with, so that its
    copy is not compiled.
    """
    try:
        config = _compile_config(model) if model.compiled else {}
    except Exception:  # Whatever an object raises that has no config.
        return []
    kept: list[str] = []
    for key in ("metrics", "weighted_metrics"):
        _without_package(config.get(key), _outputs_of(model), kept)
    return kept


def _compile_config(model):
    with quiet_about_lambdas():
        return {**model.get_compile_config()}


def _outputs_of(model):
    """Returns the outputs of a model in their structure, None where Keras has none."""
    return getattr(model, "output", None)


def _without_package(choice, outputs, names):
    """Returns metrics without those of this package, whose names go into `names`.

    Args:
        choice: What `compile` got for `outputs`, as its config has it.
        outputs: A structure of outputs, or one; None inside the list for one of them.
        names: A list.
    """
    if isinstance(choice, (list, tuple)):
        of = list(outputs.values()) if isinstance(outputs, dict) else outputs
        if isinstance(of, (list, tuple)) and len(of) == len(choice) > 1:
            # The place says for which output: also that of a None.
            pairs = zip(choice, of, strict=True)
            return [_without_package(*pair, names) for pair in pairs]
        kept = [_without_package(each, None, names) for each in choice]
        return [each for each in kept if each != []]
    if not isinstance(choice, dict):
        return choice
    if "class_name" not in choice:
        by_key = outputs if isinstance(outputs, dict) else {}
        return {
            key: _without_package(each, by_key.get(key), names)
            for key, each in choice.items()
        }
    places = (choice.get("registered_name"), choice.get("module"))
    if not any((place or "").startswith("keras_sparseout") for place in places):
        return choice
    config = choice["config"]
    names.append(config["name"] if isinstance(config, dict) else config)
    # An output may have an empty list of metrics in each form that `compile` takes.
    return []


def compile_like(
    old: keras.Model, new: keras.Model, *, without_package: bool = False
) -> None:
    """Compiles `new` as `old` was compiled, with a new optimizer.

    Args:
        old: A compiled model.
        new: The model that was made from it.
        without_package: Whether metrics of this package are left out.

    Raises:
        Exception: whatever Keras raises that can't make something again.
    """
    config = _compile_config(old)
    if not config:
        raise ValueError("get_compile_config() is empty")
    for key in ("loss_weights", "metrics", "weighted_metrics"):
        if key in config:
            config[key] = _renamed(config[key], old, new)
        if without_package and key.endswith("metrics"):
            config[key] = _without_package(config.get(key), _outputs_of(old), [])
    has_own_compile = type(new).compile is not keras.Model.compile
    if has_own_compile:
        if type(new).compile_from_config is keras.Model.compile_from_config:
            raise ValueError("its class has a `compile` of its own")
        new.compile_from_config(config)
        return
    # A loss has no state.
    config["loss"] = None
    known = _in_metrics(old)
    if old.optimizer is not None:
        known |= _in_optimizer(old.optimizer)
        # The config may have none (an .h5 was saved), or one without its loss scale.
        config["optimizer"] = keras.saving.serialize_keras_object(old.optimizer)
    with keras.saving.custom_object_scope(known):
        arguments = keras.saving.deserialize_keras_object(config)
    arguments["loss"] = _renamed(old.loss, old, new)
    new.compile(**arguments, auto_scale_loss=False)


def _in_optimizer(optimizer):
    """The classes and functions of an optimizer that Keras may not know, by name."""
    known = custom_objects(optimizer)
    # In mixed precision it is around the one that was given; it may have several.
    inner = getattr(optimizer, "inner_optimizer", None)
    for each in [*getattr(optimizer, "optimizers", []), inner]:
        if each is not None:
            known = {**_in_optimizer(each), **known}
    return known


def _in_metrics(model):
    """The classes and functions of a model's metrics that Keras may not know, by name.

    One name that means several is left out.
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()

    def visit(value: object) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, (list, tuple, dict)):
            for item in value.values() if isinstance(value, dict) else value:
                visit(item)
        elif isinstance(value, keras.metrics.Metric):
            note(type(value))
            visit(vars(value))
        elif isinstance(value, types.FunctionType):
            note(value)

    def note(known: Any) -> None:
        if not known.__module__.startswith("keras."):
            is_clear = found.setdefault(known.__name__, known) is known
            found[known.__name__] = known if is_clear else None

    visit([*model.metrics])
    return {name: known for name, known in found.items() if known is not None}


def _renamed(choice, old, new):
    """Returns what was given by the names of outputs, by their new names."""
    names = getattr(old, "output_names", []), getattr(new, "output_names", [])
    is_by_name = isinstance(choice, Mapping) and "class_name" not in choice
    if not is_by_name or not names[0] or isinstance(old.output, Mapping):
        return choice
    by_old = dict(zip(*names, strict=False))
    return {by_old.get(key, key): value for key, value in choice.items()}


def copy_optimizer(old: keras.Model, new: keras.Model, copied: Copied) -> None:
    """Copies the state of a model's optimizer into that of its copy.

    Args:
        old: A compiled model.
        new: A model compiled with the same optimizer.
        copied: Pairs of an old and a new variable, by the id of the old one.
    """
    _copy_exclusions(old, new, copied)
    if old.optimizer.built and new.built:
        new.optimizer.build(new.trainable_variables)
    before, after = old.trainable_variables, new.trainable_variables
    mine, plain = _slots(old.optimizer, before)
    others, other_plain = _slots(new.optimizer, after)
    places = {id(v): number for number, v in enumerate(after)}
    order = [places.get(id(copied[id(v)][1])) for v in before if id(v) in copied]
    for (number, kind), variable in mine.items():
        its_copy = copied.get(id(before[number]), (None, None))[1]
        target = others.get((places.get(id(its_copy)), kind))
        if target is not None:
            target.assign(variable)
    names = {v.name for v in before}
    lost = [v.path for v in plain if v.name in names]
    if order == list(range(len(after))):
        lost = []
    if not lost and len(plain) == len(other_plain):
        for variable, target in zip(plain, other_plain, strict=True):
            target.assign(variable)
    else:
        others = {v.path: v for v in other_plain}
        for variable in plain:
            if variable.path not in lost and variable.path in others:
                others[variable.path].assign(variable)
    if lost:
        warnings.warn(
            f"The optimizer of the copy of {old.name!r} starts anew where "
            f"{type(old.optimizer).__name__} does not say which variable its own "
            f"belong to: {', '.join(lost[:8])}.",
            stacklevel=2,
        )


def _copy_exclusions(old, new, copied):
    """Leaves out of the weight decay what the old optimizer leaves out of it."""
    mine, other = old.optimizer, new.optimizer
    while mine and other:
        _exclude_like(mine, other, copied)
        # A LossScaleOptimizer lets the one inside it decay.
        mine, other = (getattr(o, "inner_optimizer", None) for o in (mine, other))


def _exclude_like(mine, other, copied):
    # Configs do not have it, and Keras has no public way to ask.
    decays = getattr(mine, "_use_weight_decay", lambda variable: True)
    pattern = getattr(mine, "_exclude_from_weight_decay_pattern", None)
    left_out = [its_copy for v, its_copy in copied.values() if not decays(v)]
    names = [] if pattern is None else [pattern.pattern]
    if not left_out and not names:
        return
    if other.built:
        warnings.warn(
            f"The optimizer of the copy decays all weights, though {mine.name!r} has "
            "`exclude_from_weight_decay`: the class of the model builds it in "
            "`compile_from_config`. Compile the copy.",
            stacklevel=2,
        )
        return
    other.exclude_from_weight_decay(left_out, names)


def _slots(optimizer, trainable):
    """The variables of an optimizer: those that belong to a variable, and the others.

    Keras names them by the path of the variable and the kind, such as
    "dense_kernel_momentum".

    Returns:
        Dict of variables by the number of the variable that they belong to, and their
        kind; list of the others, such as the learning rate.
    """
    by_path: dict[str, list[int]] = {}
    by_name: dict[str, list[int]] = {}
    for number, variable in enumerate(trainable):
        by_path.setdefault(variable.path.replace("/", "_"), []).append(number)
        by_name.setdefault(variable.name, []).append(number)
    if not isinstance(
        getattr(optimizer, "inner_optimizer", optimizer), keras.optimizers.Adafactor
    ):
        by_name = {}
    found: dict[tuple[int, str], keras.Variable] = {}
    others: list[keras.Variable] = []
    counts: dict[str, int] = {}
    for variable in optimizer.variables:
        count = counts[variable.name] = counts.get(variable.name, -1) + 1
        key = variable.name
        while key and key not in by_path:
            key = key.rpartition("_")[0]
        # Several variables may have one path: they are in the order of the model.
        if key and count < len(by_path[key]):
            found[by_path[key][count], variable.name[len(key) + 1 :]] = variable
        elif count // 2 < len(by_name.get(variable.name, [])):
            # Adafactor has one for the rows and one for the columns of each.
            found[by_name[variable.name][count // 2], str(count % 2)] = variable
        else:
            others.append(variable)
    return found, others
