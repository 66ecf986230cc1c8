"""Makes a model anew with other layers in it: what all of this room stands on.

The new model has layers of its own, made from the configs of the old ones, with copies
of their weights. The old model is left as it was.
"""

from collections.abc import Mapping, Sequence

import keras

from keras_sparseout.models.copying import compile_state, operation_names, own_classes
from keras_sparseout.models.copying.layer_copies import (
    Part,
    copy_of,
    listed,
    parts_of,
)
from keras_sparseout.models.copying.layer_states import StateCopies
from keras_sparseout.models.copying.model_graphs import (
    check_model,
    has_graph,
    in_several_places,
    inside,
)
from keras_sparseout.models.copying.steps import Change, Step, layers_in_sequence


def rebuild(
    model: keras.Model, changes: Sequence[Change], *, without_package: bool = False
) -> keras.Model:
    """Returns a new model with copies of the layers of `model`, and `changes`.

    Args:
        model: Functional or Sequential model, built or not.
        changes: What becomes of layers, at most one for each. They may be in models
            inside the model, and where the config of a layer holds a layer.
        without_package: Whether metrics of this package are left out where the new
            model is compiled.

    Raises:
        ValueError: if a model or layer can't be made again from its config.
    """
    check_model(model)
    operation_names.reserve(operation_names.names_in(model))
    by_layer = {id(change.layer): change for change in changes}
    rebuilding = _Rebuilding(by_layer, model)
    new = rebuilding.copy_model(model, is_inner=False)
    inserted = [layer for change in changes for layer in change.inserted()]
    are_trainable = [layer.trainable for layer in inserted]
    states = StateCopies(
        lambda layer: getattr(by_layer.get(id(layer)), "keeps", None), rebuilding.made
    )
    for intermediate, final in rebuilding.intermediate:
        states.copy(intermediate, final)
    # The outermost first: what is trainable there holds for what is inside.
    for old, its_copy in reversed(rebuilding.made.values()):
        states.copy(old, its_copy)
    # A frozen model freezes what is in it: a threshold would stay where it starts.
    for layer, is_trainable in zip(inserted, are_trainable, strict=True):
        if layer.trainable != is_trainable:
            layer.trainable = is_trainable
    _check_complete(model, states, changes)
    compile_state.copy(model, new, states.copied, without_package=without_package)
    return new


class _Rebuilding:
    """One run of `rebuild`.

    Attributes:
        made: Each layer that has a copy, and the copy, by the id of the layer.
        intermediate: Copies of parts that were only made for their config, and what was
            made from it.
    """

    def __init__(self, changes: Mapping[int, Change], model: keras.Model) -> None:
        self._changes = changes
        self._model = model
        self._variables = {
            id(each): v for v in model.variables for each in (v, v.value)
        }
        self._shared = in_several_places(model)
        self._steps: dict[int, Step] = {}
        self.made: dict[int, tuple[keras.layers.Layer, keras.layers.Layer]] = {}
        self.intermediate: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []

    def copy_model(self, model: keras.Model, *, is_inner: bool = True) -> keras.Model:
        """Makes a model anew, without its state."""
        new = own_classes.copy_of(
            model,
            self._graph(model),
            lambda: _Rebuilding({}, model)._graph(model),
            is_inner=is_inner,
        )
        if new.dtype_policy != model.dtype_policy:
            # Keras takes that of today: it says what is cast, and whether losses scale.
            new.dtype_policy = model.dtype_policy
        self.made[id(model)] = (model, new)
        return new

    def _graph(self, model):
        """Makes what a model is made of anew: inputs and outputs, or layers."""
        if isinstance(model, keras.Sequential):
            return self._graph_in_sequence(model)
        return self._copy_graph(model, model.input, model.output)

    def _copy_graph(self, model, inputs, outputs):
        # The same layers in a model that is not compiled: Keras would compile the copy.
        twin = keras.Model(inputs, outputs, name=model.name)
        new = keras.models.clone_model(
            twin,
            input_tensors=_new_inputs(twin),
            clone_function=self.step,
            call_function=self._call,
        )
        return new.input, _different_outputs(new, twin)

    def _call(self, step, *args, **kwargs):
        if kwargs.get("training") and self._loses(step.change.layer):
            raise _is_training(step.change.layer)
        for value in keras.tree.flatten([args, kwargs]):
            if id(value) in self._variables:
                raise _is_read(self._variables[id(value)], step.change.layer)
        return step(*args, **kwargs)

    def _graph_in_sequence(self, model):
        steps = [self.step(layer) for layer in model.layers]
        inputs = _inputs_of(model)
        if any(step.change.function is not None for step in steps):
            return self._graph_of_operations(model, inputs)
        layers = layers_in_sequence(steps, inputs[0] if inputs else None)
        if inputs:
            # A Sequential model hides the layer of its input.
            twin = keras.Model(inputs[0], model.outputs[0])
            layers.insert(0, _new_inputs(twin))
        return (layers,)

    def _graph_of_operations(self, model, inputs):
        """Makes the graph of a Sequential model some of whose layers are operations."""
        if not inputs or type(model) is not keras.Sequential:
            rule, remedy = "be built", "Call it once"
            if inputs:
                rule, remedy = "be a keras.Sequential", "Make one of its layers"
            raise ValueError(
                f"`model` must {rule} where thresholds become operations, which are no "
                f"layers. Received: model with {model.name!r} of class "
                f"{type(model).__name__}. {remedy}, or give keep_thresholds=True."
            )
        return self._copy_graph(model, inputs[0], model.outputs[0])

    def step(self, old: keras.Operation) -> Step:
        """Returns what calls of `old` become; the same for each of them."""
        if id(old) not in self._steps:
            change = self._changes.get(id(old)) or Change(old)
            self._steps[id(old)] = step = Step(change)
            if not (change.is_removed or change.function):
                step.new = self.copy(old)
        return self._steps[id(old)]

    def copy(self, old: keras.Operation) -> keras.Operation:
        """Makes what takes the place of a layer or operation, without its state."""
        change = self._changes.get(id(old)) or Change(old)
        if change.keeps is not None:
            new = self.step(change.keeps).new
            if new is not None:
                new.name = change.name or new.name
                _take_regularizer(old, new)
            return new
        if change.replacement is not None:
            new = change.replacement
        elif has_graph(old):
            return self.copy_model(old)
        else:
            new = self._copy_with_parts(old)
        if isinstance(old, keras.layers.Layer):
            self.made[id(old)] = (old, new)
        return new

    def _copy_with_parts(self, old):
        """Copies a layer, with the copies of layers in its config that need their own.

        These are layers that change, and those that are called elsewhere too.
        """
        if not isinstance(old, keras.layers.Layer):
            return copy_of(old)
        parts = {
            key: part
            for key, part in parts_of(old).items()
            if any(self._changes_in(p) or id(p) in self._shared for p in listed(part))
        }
        if not isinstance(old, keras.layers.Bidirectional):
            return copy_of(
                old, {key: self._new_part(part) for key, part in parts.items()}
            )
        # It makes two layers from the config of the one that it is given.
        apart = _Rebuilding(self._changes, self._model)
        described = {key: apart._new_part(part) for key, part in parts.items()}
        new = copy_of(old, described, by_config=True)
        for key, part in described.items():
            pairs = zip(listed(part), listed(parts_of(new)[key]), strict=True)
            self.intermediate += [(p, f) for p, f in pairs if has_graph(p)]
        return new

    def _new_part(self, part: Part) -> Part:
        if not isinstance(part, keras.layers.Layer):
            return [self._new_part(p) for p in part]
        return self.step(part).as_layer()

    def _changes_in(self, layer):
        """Whether `layer` changes, or a layer inside it."""
        if id(layer) in self._changes:
            return True
        return any(map(self._changes_in, inside(layer)))

    def _loses(self, layer):
        """Whether `layer`, or a layer inside it, is there no more."""
        change = self._changes.get(id(layer))
        if change is not None and change.is_gone and change.replacement is None:
            return True
        return any(map(self._loses, inside(layer)))


def _inputs_of(model):
    """Returns the symbolic inputs of a Sequential model, none before it is built."""
    try:
        return model.inputs
    except AttributeError:
        return []


def _new_inputs(model):
    """Makes inputs like those of `model`, in the same structure."""
    layers = [x for x in model.layers if isinstance(x, keras.layers.InputLayer)]

    def new_input(tensor: keras.KerasTensor) -> keras.KerasTensor:
        for layer in layers:
            if layer.output is tensor:
                return type(layer).from_config(layer.get_config()).output
        raise AssertionError(tensor)

    return keras.tree.map_structure(new_input, model.input)


def _different_outputs(new, old):
    """Returns the outputs of `new`, as many different ones as `old` has.

    Where layers are gone, two outputs may be one tensor. Then losses and metrics that
    were given by their names would not know which is which.
    """
    outputs: list[keras.KerasTensor] = []
    before = keras.tree.flatten(old.output)
    for number, output in enumerate(keras.tree.flatten(new.output)):
        same = [b for o, b in zip(outputs, before, strict=False) if o is output]
        if same and all(b is not before[number] for b in same):
            name = old.output_names[number]
            kind, dtype = keras.layers.Activation, output.dtype
            output = kind("linear", name=name, dtype=dtype)(output)
        outputs.append(output)
    return keras.tree.pack_sequence_as(new.output, outputs)


def _take_regularizer(old, new):
    """Gives `new` the activity regularizer of `old`, which was around it."""
    if old.activity_regularizer is None:
        return
    if new.activity_regularizer is not None:
        raise ValueError(
            "`model` must have at most one activity regularizer in a wrapper and the "
            f"layer in it. Received: model with {old.name!r} and {new.name!r}, which "
            "have one each. Give one of them the sum of both."
        )
    new.activity_regularizer = old.activity_regularizer


def _is_read(variable, layer):
    return ValueError(
        "`model` must read variables of its layers only in the layers that have them: "
        "the copy would go on reading the old one. Received: model with "
        f"{layer.name!r}, which takes {variable.path!r}. Read it in the `call` of a "
        "layer of your own."
    )


def _is_training(layer):
    return ValueError(
        "`model` must have no layer of this package that is called with training=True: "
        f"it acts in predictions too. Received: model with {layer.name!r}, called with "
        "training=True. Make the model without it."
    )


def _check_complete(
    model: keras.Model, states: StateCopies, changes: Sequence[Change]
) -> None:
    """Raises if a variable has no copy, but for those of layers that are gone."""
    lost = {id(v) for change in changes for v in change.lost()}
    for variable in model.variables:
        if id(variable) not in states.copied and id(variable) not in lost:
            raise ValueError(
                "`model` must have layers that Keras tracks in the same places when "
                "they are made again from their configs. Received: model with "
                f"{variable.path!r}, which has no place in the copy. Set the layer "
                "that has it in `__init__`."
            )
