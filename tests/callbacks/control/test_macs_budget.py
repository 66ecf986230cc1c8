"""A budget of multiply-accumulates: the share of them that zeros make needless."""

import re

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

from keras_sparseout import (
    ActivationPenalty,
    SparsityController,
    TargetSparsity,
    activation_sparsity,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(1024, 6, 6, 1)).astype("float32")
SAVING = ("first", "second")
Y = X[:, 1:5, 1:5].sum(axis=(1, 2, 3)) / 4


def cnn(*, after=list):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            kl.Conv2D(8, 3, activation="relu", padding="same", name="first"),
            *after(),
            kl.MaxPooling2D(),
            kl.Dropout(0.2),
            kl.Conv2D(16, 3, activation="relu", padding="same", name="second"),
            *after(),
            kl.Flatten(),
            kl.Dense(1, name="head"),
        ]
    )


def fit(model, controller, epochs=6, optimizer=None):
    optimizer = optimizer or keras.optimizers.SGD(0.05)
    model.compile(optimizer, "mse", jit_compile=False)
    options = {"epochs": epochs, "verbose": 0, "callbacks": [controller]}
    return batched.fit(model, X[:768], Y[:768], **options).history


def needless_macs(model):
    table = activation_sparsity(model, X[768:], verbose=0)
    return 1 - table.effective_macs / table.macs


def test_penalties_reach_a_budget_on_data_not_seen():
    model = cnn()
    controller = SparsityController(0.3, "needless_macs", verbose=0)
    logs = fit(model, controller)
    assert needless_macs(model) == pytest.approx(0.3, abs=0.02)
    layers = {f"{key}/{w}" for key in ("zero_fraction", "penalty") for w in SAVING}
    of_model = {"needless_macs", "error/needless_macs"}
    assert set(logs) - {"loss"} == controller.log_keys() == layers | of_model
    error = 0.3 - logs["needless_macs"][-1]
    assert logs["error/needless_macs"][-1] == pytest.approx(error)
    # Each is pushed by what its zeros save, a channel.
    saved = 49 * 8 * 16 / 8, 9 * 16 / 16
    weights = [logs[f"penalty/{name}"][-1] for name in SAVING]
    assert weights[0] / weights[1] == pytest.approx(saved[0] / saved[1], rel=1e-3)
    upper, lower = controller.plot().axes[:2]
    assert upper.get_lines()[0].get_label() == "needless_macs"
    assert [line.get_label() for line in lower.get_lines()[:2]] == [
        f"penalty/{name}" for name in SAVING
    ]


def test_one_target_of_all_thresholds_reaches_a_budget():
    model = cnn(after=lambda: [TargetSparsity(0.3, adjustable=True)])
    controller = SparsityController(0.5, "needless_macs", x=X[:256], verbose=0)
    logs = fit(model, controller, epochs=4)
    assert needless_macs(model) == pytest.approx(0.5, abs=0.02)
    targets = {logs[key][-1] for key in logs if key.startswith("target/")}
    assert len(targets) == 1
    assert logs["val_needless_macs"][-1] == pytest.approx(0.5, abs=0.02)


@pytest.mark.usefixtures("optimizers_of_keras")
def test_the_weight_of_penalties_in_the_model_moves_to_a_budget():
    keras.utils.set_random_seed(0)
    penalty = ActivationPenalty(0.0, adjustable=True, name="penalty")
    layers = [kl.Flatten(), kl.Dense(32, "relu"), penalty, kl.Dense(32), kl.Dense(1)]
    model = keras.Sequential([keras.Input((6, 6, 1)), *layers])
    options = {"bounds": (0.0, 1.0), "every": 4, "verbose": 0}
    controller = SparsityController(0.26, "needless_macs", **options)
    logs = fit(model, controller, optimizer=keras.optimizers.Adam(0.004))
    assert logs["needless_macs"][0] < 0.24
    assert needless_macs(model) == pytest.approx(0.26, abs=0.02)
    assert logs["weight/penalty"][-1] > 0


@pytest.mark.parametrize(
    ("target", "options", "says"),
    [
        (
            0.95,
            {},
            "if all activations of first, second are zero, here 0.758. Received",
        ),
        ({"first": 0.5}, {}, "`target` must be one number for metric="),
        (
            0.5,
            {"layers": ["head"]},
            "with head, which are never exactly 0. Name others",
        ),
    ],
)
def test_a_budget_that_can_not_be_kept_is_an_error(target, options, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        fit(cnn(), SparsityController(target, "needless_macs", **options))


def test_a_model_whose_input_shapes_are_not_known_needs_data():
    inputs = keras.Input((None, 4))
    hidden = kl.Dense(8, "relu")(inputs)
    model = keras.Model(inputs, kl.Dense(1)(kl.GlobalMaxPooling1D()(hidden)))
    with pytest.raises(ValueError, match="`x` must be given for metric="):
        fit(model, SparsityController(0.5, "needless_macs"))


def test_a_model_of_strings_needs_data():
    words = kl.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
    layers = [keras.Input((1,), dtype="string"), words, kl.Dense(8, "relu")]
    model = keras.Sequential([*layers, kl.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    x, y = tf.constant([["a"], ["b"]] * 32), np.zeros((64, 1))

    def needless(**data):
        controller = SparsityController(0.1, "needless_macs", verbose=0, **data)
        return model.fit(x, y, verbose=0, callbacks=[controller]).history

    with pytest.raises(ValueError, match=r"`x` must be given for .* some are strings"):
        needless()
    assert 0 < needless(x=x)["needless_macs"][0] < 1


def test_a_layer_with_dead_units_is_spared_and_the_others_go_on():
    keras.utils.set_random_seed(0)
    bias = keras.initializers.Constant(np.where(np.arange(16) < 12, -99.0, 0.0))
    layers = [
        kl.Dense(16, "relu", name="alive"),
        kl.Dense(16, "relu", bias_initializer=bias, name="dead"),
    ]
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), kl.Flatten(), *layers, kl.Dense(1)]
    )
    controller = SparsityController(0.25, "needless_macs", verbose=0)
    with pytest.warns(UserWarning, match="75% of the units of dead are dead"):
        logs = fit(model, controller, epochs=3)
    assert logs["penalty/dead"][-1] == 0
    assert logs["penalty/alive"][-1] > 0
