"""SparsityController on any model: penalties for the time of `fit`, thresholds."""

import contextlib
import json
import re
import zipfile

import batched
import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from controlled import X, Y, classifier

from keras_sparseout import SparsityController, TargetSparsity, models
from keras_sparseout.backend import variables
from keras_sparseout.ops import penalties

L = keras.layers


def plain(activation="relu", optimizer=None):
    keras.utils.set_random_seed(1)
    hidden = L.Dense(64, activation, name="hidden")
    layers = [keras.Input((12,), name="x"), hidden, L.Dense(3, name="out")]
    model = keras.Sequential(layers, name="net")
    # A name without a number, which would count the tests.
    optimizer = optimizer or keras.optimizers.SGD(0.05, name="sgd")
    model.compile(optimizer, "mse", jit_compile=False)
    return model


def with_slots():
    """An optimizer that has a variable for each weight."""
    return keras.optimizers.SGD(0.01, momentum=0.9, name="momentum")


def controller(target=0.7, **kwargs):
    return SparsityController(target, **{"kind": "l1", "verbose": 0, **kwargs})


def fit(model, *callbacks, epochs=2, rows=640, data=None):
    options = {"epochs": epochs, "verbose": 0, "callbacks": list(callbacks)}
    if data is not None:
        return model.fit(data, shuffle=False, **options).history
    return batched.fit(model, X[:rows], Y[:rows], batch_size=16, **options).history


def numbers(model):
    """All variables of a model and its optimizer, by path."""
    found = [*model.variables, *model.optimizer.variables]
    return {v.path: np.array(variables.to_numpy(v)) for v in found}


def attributes(model):
    """What a model and its layers have: names of attributes, paths, config."""
    kept = {holder.name: sorted(vars(holder)) for holder in (model, *model.layers)}
    paths = [v.path for v in (*model.variables, *model.optimizer.variables)]
    return kept, paths, model.get_config(), len(model.losses)


def assert_same_numbers(some, others):
    assert some.keys() == others.keys()
    for path, value in some.items():
        np.testing.assert_array_equal(value, others[path])


def test_it_reaches_the_target_and_leaves_no_trace():
    model, untouched = plain(), plain()
    control = controller(0.7, x=X[:200])
    history = fit(model, control, epochs=4)
    assert history["val_zero_fraction/hidden"][-1] == pytest.approx(0.7, abs=0.03)
    assert history["penalty/hidden"][-1] > 0
    fit(untouched, epochs=1, rows=16)
    assert attributes(model) == attributes(untouched)
    assert "call" not in vars(model.get_layer("hidden"))


class Break(Exception):
    pass


class Broken(keras.utils.PyDataset):
    """Ten batches, of which the third one raises."""

    def __len__(self):
        return 10

    def __getitem__(self, number):
        if number == 2:
            raise Break
        return X[:16], Y[:16]


def raising(moment):
    def stop(batch, logs=None):
        if batch == 2:
            raise Break

    return keras.callbacks.LambdaCallback(**{moment: stop})


@pytest.fixture(scope="module")
def trio():
    """A model, its controller and a model without one, which train in all cases.

    The first case traces the model's own step after the one with the controller.
    """
    return plain(optimizer=with_slots()), controller(), plain(optimizer=with_slots())


@pytest.mark.parametrize(
    "where", ["on_train_batch_begin", "on_train_batch_end", "data", "never"]
)
def test_after_a_fit_the_model_trains_as_an_untouched_one(where, trio):
    model, control, untouched = trio
    others = [raising(where)] if where.startswith("on") else []
    # TensorFlow turns errors of the data into its own.
    errors = pytest.raises((Break, tf.errors.OpError))
    data = Broken() if where == "data" else None
    with contextlib.nullcontext() if where == "never" else errors:
        fit(model, control, *others, epochs=1, rows=160, data=data)
    assert "call" not in vars(model.get_layer("hidden"))
    model.optimizer.build(model.trainable_variables)
    untouched.optimizer.build(untouched.trainable_variables)
    now = numbers(model)
    assert now["net/hidden/kernel"].std() > 0
    for variable in (*untouched.variables, *untouched.optimizer.variables):
        variable.assign(now[variable.path])
    histories = [fit(m, epochs=1, rows=160) for m in (model, untouched)]
    assert histories[0] == histories[1]
    assert_same_numbers(numbers(model), numbers(untouched))
    assert attributes(model) == attributes(untouched)


def keys_of(path):
    """The names and shapes of all arrays in a file, and its config if it has one."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            archive.extract("model.weights.h5", path.parent / path.stem)
        # Identities of objects differ.
        config = re.sub(r"'shared_object_id': \d+", "", str(config))
        return config, keys_of(path.parent / path.stem / "model.weights.h5")
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: getattr(item, "shape", None)})
        )
    return found


def test_files_of_checkpoints_in_mid_fit_are_those_of_the_users_model(tmp_path):
    kinds = {"whole.keras": False, "some.weights.h5": True}
    contents = []
    for callbacks in ([controller()], []):
        folder = tmp_path / str(len(contents))
        folder.mkdir()
        saving = [
            keras.callbacks.ModelCheckpoint(
                folder / name, save_weights_only=only, save_freq=3
            )
            for name, only in kinds.items()
        ]
        fit(plain(optimizer=with_slots()), *callbacks, *saving, epochs=1, rows=64)
        contents.append([keys_of(folder / name) for name in kinds])
    assert contents[0] == contents[1]


WAYS = {
    "eager": {"run_eagerly": True},
    "compiled": {"jit_compile": True},
    "several steps": {"steps_per_execution": 4},
    "loss scale": {},
}


@pytest.fixture(scope="module")
def usual():
    control = controller()
    fit(plain(), control, epochs=1, rows=256)
    return control.history


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_train_gives_the_same_figures(way, usual):
    model, control = plain(), controller(every=4)
    optimizer, options = model.optimizer, {"jit_compile": False, **WAYS[way]}
    if way == "loss scale":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, "mse", **options)
    fit(model, control, epochs=1, rows=256)
    every = np.isin(usual["epoch"], control.history["epoch"])
    assert every.sum() == 4
    expected = np.array(usual["penalty/hidden"])[every]
    np.testing.assert_allclose(control.history["penalty/hidden"], expected, rtol=0.02)
    assert expected[-1] > 0


def test_on_replicas_it_is_the_same():
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
    with strategy.scope():
        model = plain()
    history = fit(model, controller(0.7), epochs=2)
    assert history["zero_fraction/hidden"][-1] == pytest.approx(0.7, abs=0.04)
    for variable in model.trainable_variables:
        one, other = variable.value.values
        np.testing.assert_array_equal(one, other)


def test_a_second_run_is_not_frozen_by_the_first():
    model, control = plain(), controller(0.9, freeze_after=1)
    frozen = fit(model, control, epochs=3, rows=160)["penalty/hidden"]
    assert frozen[1] == pytest.approx(frozen[2], rel=0.2)
    control.freeze_after = None
    again = fit(model, control, epochs=2, rows=160)
    assert again["zero_fraction/hidden"][1] > again["zero_fraction/hidden"][0]


@pytest.fixture
def in_float64():
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    # Keras may have made its policy already.
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("kind", ["l1", "hoyer_square"])
def test_with_float64_as_the_type_of_keras_it_comes_to_the_target(kind):
    model, control = plain(), controller(0.7, kind=kind)
    history = fit(model, control, epochs=3)
    assert model.get_layer("hidden").compute_dtype == "float64"
    assert history["zero_fraction/hidden"][-1] == pytest.approx(0.7, abs=0.04)
    assert history["penalty/hidden"][-1] > 0


@pytest.mark.usefixtures("in_float64")
def test_with_float64_as_the_type_of_keras_padding_does_not_count():
    x = keras.ops.ones((2, 3, 4))
    mask = keras.ops.convert_to_tensor([[True, True, False], [True, False, False]])
    for given, vectors in ((None, 6), (mask, 3)):
        _, counted = penalties.mean_penalty_gradient(x, given, "l1", 0.03)
        assert float(counted) == vectors


def test_a_push_goes_on_in_a_second_run_and_begins_anew_with_a_new_optimizer():
    model, control = plain(), controller(0.9)
    fit(model, control, rows=320)
    again = fit(model, control, epochs=1, rows=16)
    assert again["penalty/hidden"][0] > 0
    model.compile("sgd", "mse", jit_compile=False)
    anew = fit(model, control, epochs=1, rows=16)
    assert anew["penalty/hidden"] == [0]


def test_layers_of_a_subclassed_model_are_pushed_from_the_second_batch_on():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            keras.utils.set_random_seed(1)
            self.hidden = L.Dense(64, "relu", name="hidden")
            self.out = L.Dense(3, name="out")

        def call(self, x):
            return self.out(self.hidden(x))

    model, control = Own(), controller(0.7)
    model.compile("sgd", "mse", jit_compile=False)
    history = fit(model, control, epochs=2)
    assert history["zero_fraction/hidden"][-1] == pytest.approx(0.7, abs=0.04)


def test_layers_that_have_no_floating_tensors_are_an_error():
    ids = L.Discretization([0.0], name="ids")
    inputs = keras.Input((12,))
    embedded = L.Embedding(2, 4)(ids(inputs))
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(embedded)))
    model.compile("sgd", "mse", jit_compile=False)
    with pytest.raises(ValueError, match="whose output is a tensor of int") as error:
        fit(model, controller(layers="ids"))
    assert "`layers` must be layers whose outputs are dense" in str(error.value)
    assert "Received: layers=ids" in str(error.value)


def test_layers_without_a_gradient_are_named():
    model = plain()
    model.get_layer("hidden").trainable = False
    model.compile("sgd", "mse", jit_compile=False)
    with pytest.warns(UserWarning, match="no trainable weights come before hidden"):
        fit(model, controller(), epochs=1, rows=64)


def test_a_kind_for_what_is_no_penalty_is_an_error():
    model = classifier()
    model.compile("sgd", "mse", jit_compile=False)
    with pytest.raises(ValueError, match="kind='l1' with actuator='q'"):
        fit(model, controller())


def test_thresholds_need_layers_and_the_error_inserts_them():
    model = plain()
    with pytest.raises(ValueError, match=r"models\.insert") as error:
        fit(model, SparsityController(0.7, actuator="threshold", verbose=0))
    call = str(error.value).split("Insert them: ")[1].rstrip(".")
    names = {"models": models, "model": model, "TargetSparsity": TargetSparsity}
    model = eval(call, names)
    model.compile("sgd", "mse", jit_compile=False)
    [added] = [layer for layer in model.layers if isinstance(layer, TargetSparsity)]
    history = fit(model, SparsityController(0.7, verbose=0), epochs=4)
    assert history[f"zero_fraction/{added.name}"][-1] == pytest.approx(0.7, abs=0.03)
    # The last step of control comes after the last training step.
    assert history[f"target/{added.name}"][-1] == pytest.approx(added.target, rel=0.01)


def test_a_target_below_what_there_is_is_said(capsys):
    fit(plain(), controller(0.2, verbose=1), epochs=2)
    said = capsys.readouterr().out
    assert "asked for 0.2, at penalty/hidden = 0" in said
    assert "above the target 0.2" in said


@pytest.mark.parametrize(
    ("activation", "kind", "wrong"),
    [("gelu", "l1", True), ("gelu", "hoyer_square", False), ("relu", "l1", False)],
)
def test_a_penalty_that_works_the_wrong_way_says_so(activation, kind, wrong, recwarn):
    model, control = plain(activation), controller(0.8, metric="hoyer", kind=kind)
    history = fit(model, control, epochs=3)
    said = [str(w.message) for w in recwarn if "wrong way" in str(w.message)]
    assert len(said) == wrong
    figures = history["hoyer/hidden"]
    if wrong:
        # No promise that it works.
        assert 'kind="hoyer_square" was not tried here' in said[0]
        assert history["penalty/hidden"][-1] == 0
    else:
        assert figures[-1] > figures[0]


class MakesAnOptimizer(keras.Sequential):
    def train_step(self, data):
        if not hasattr(self, "second"):
            self.second = keras.optimizers.SGD()
        return super().train_step(data)


def test_an_optimizer_that_the_first_step_makes_is_no_new_compilation():
    layers = [keras.Input((12,)), L.Dense(8, "relu", name="hidden"), L.Dense(3)]
    model, control = MakesAnOptimizer(layers), controller(0.9)
    model.compile("sgd", "mse", jit_compile=False)
    fit(model, control, rows=320)
    assert fit(model, control, epochs=1, rows=16)["penalty/hidden"][0] > 0
