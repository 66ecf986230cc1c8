"""When SparsityController moves its layers: guards, frozen settings, broken losses."""

import re

import batched
import keras
import numpy as np
import pytest
from controlled import X, Y, classifier, fit, loss_of_known, mostly_dead

from keras_sparseout import SparsityController


def test_dead_units_are_told_over_short_epochs():
    model = mostly_dead()
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    controller = SparsityController(0.99, every=32, gain=0.1, verbose=0)
    options = {"epochs": 9, "verbose": 0, "callbacks": [controller]}
    with pytest.warns(UserWarning, match="75% of the units of hidden are dead"):
        batched.fit(model, X[:48], Y[:48], batch_size=16, **options)
    q = controller.history["q/hidden"]
    # Of 48 vectors an epoch, the sixth one makes them more than 256.
    assert q[:5] == sorted(set(q[:5]), reverse=True)
    assert set(q[4:]) == {q[4]}


@pytest.mark.onednn
@pytest.mark.parametrize("freeze_after", [None, 1])
def test_what_stopped_stays_so_and_is_not_frozen_elsewhere(freeze_after):
    model = classifier()
    model.compile("sgd", loss_of_known, jit_compile=False)
    y = Y.copy()
    y[300:310] = np.nan
    options = {"every": 4, "gain": 0.1, "verbose": 0}
    controller = SparsityController(0.8, freeze_after=freeze_after, **options)
    says = "the loss is nan: the settings stay"
    options = {"epochs": 3, "verbose": 0, "callbacks": [controller]}
    with pytest.warns(UserWarning, match=says) as warned:
        batched.fit(model, X, y, batch_size=16, **options)
    assert len(warned) == 1
    q = controller.history["q/hidden"]
    # The loss is NaN from the nineteenth batch on, before the fifth reading.
    assert q[:4] == sorted(set(q[:4]), reverse=True)
    assert set(q[4:]) == {q[3]}


def test_after_freeze_after_the_setting_stays(capsys):
    # About what this model has: only a figure near the target is to be repeated.
    controller = SparsityController(0.483, every=8, gain=0.1, freeze_after=1)
    history = fit(classifier(), controller, epochs=3)
    q = history["q/hidden"]
    assert q[0] != q[1] == q[2]
    moved = controller.history["q/hidden"][:5]
    assert min(moved) < q[2] < max(moved)
    assert len(controller.history["epoch"]) == 3 * 5
    assert f"Sparseout(0.5, q={q[2]:.4g}, name='hidden')" in capsys.readouterr().out


@pytest.mark.parametrize("off", [0.0, 0.1])
def test_settings_to_repeat_are_named_where_all_targets_were_reached(off, capsys):
    model = classifier(names=("first", "second"))
    places = [model.get_layer(name).input for name in ("first", "second")]
    has = [np.mean(a == 0) for a in keras.Model(model.inputs, places).predict(X)]
    targets = {"first": float(has[0]), "second": float(has[1]) + off}
    # Nothing moves, neither weights nor settings.
    controller = SparsityController(targets, every=8, gain=1e-9)
    fit(model, controller, epochs=1, optimizer=keras.optimizers.SGD(0.0))
    out = capsys.readouterr().out
    assert out.count("To repeat it fixed: Sparseout(0.5, q=2") == (0 if off else 2)
    assert "moved during the training" not in out
    assert ("which were too few to bring zero_fraction of second" in out) is bool(off)


def test_a_target_out_of_reach_is_said_once_with_the_range():
    controller = SparsityController(0.97, every=4, bounds=(1.9, 2.1), verbose=0)
    with pytest.warns(UserWarning, match="can't be brought") as warned:
        fit(classifier(), controller, epochs=6)
    assert len(warned) == 1
    text = str(warned[0].message)
    assert (
        "zero_fraction of hidden can't be brought to 0.97 with q in [1.9, 2.1]" in text
    )
    low, high = map(float, re.search(r"reached (\S+) to (\S+)\. Widen", text).groups())
    assert 0.3 < low <= high < 0.97


@pytest.mark.onednn
def test_nan_activations_are_reported_with_the_name_of_the_layer():
    model = classifier(activation="linear")
    model.layers[0].bias.assign([np.nan] + [0.0] * 63)
    controller = SparsityController(0.5, "hoyer", every=8)
    with pytest.warns(UserWarning, match="hidden contain NaN|loss is nan") as warned:
        fit(model, controller, epochs=2)
    assert len([w for w in warned if "contain NaN" in str(w.message)]) == 1
    assert set(controller.history["q/hidden"]) == {2.0}
