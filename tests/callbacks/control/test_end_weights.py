"""Other callbacks and optimizers may change the weights as training ends."""

import warnings

import keras
import numpy as np
import pytest
from controlled import X, Y, classifier

from keras_sparseout import SparsityController

OTHERS = "the model has other weights now than at the end of the last epoch"


class Scores(keras.callbacks.Callback):
    """Puts a score into the logs, which falls in the end; keeps the weights."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = (1.0, 1.0, 0.0)[epoch]
        self.weights.append(self.model.get_weights())


def first_epoch(**kwargs):
    return keras.callbacks.EarlyStopping(
        "loss", mode="max", patience=9, restore_best_weights=True, **kwargs
    )


def train(*callbacks, optimizer=None, first=0, validated=False):
    keras.utils.set_random_seed(0)
    model = classifier(regularizer=lambda name: keras.layers.ReLU(name=name))
    model.compile(optimizer or keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    options = {"batch_size": 160, "epochs": first + 3, "verbose": 0}
    options["initial_epoch"] = first
    if validated:
        options.update(validation_data=(X[:160], Y[:160]), validation_batch_size=160)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, Y, callbacks=list(callbacks), **options)
    said = [str(w.message) for w in caught if "SparsityController" in str(w.message)]
    return model.get_weights(), said


def is_same(some, others):
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


def test_weights_of_an_earlier_epoch_are_said_not_to_be_those_of_the_figures(capsys):
    scores, stopping = Scores(), first_epoch()
    weights, said = train(scores, SparsityController(0.9), stopping)
    assert is_same(weights, scores.weights[0])
    out = capsys.readouterr().out
    assert out.index(OTHERS) < out.index(" is 0.")
    [warning] = said
    assert "the epoch with the best loss as training ends" in warning
    assert "Give it start_from_epoch=2, or leave restore_best_weights out" in warning
    # With what it says, the weights are of an epoch after the ramp: here the last one.
    weights, said = train(
        scores := Scores(), SparsityController(0.9), first_epoch(start_from_epoch=2)
    )
    assert is_same(weights, scores.weights[2])
    assert said == []
    assert OTHERS not in capsys.readouterr().out


def test_what_it_says_of_a_run_with_an_initial_epoch_is_of_its_own_epochs():
    early = keras.callbacks.EarlyStopping("loss", restore_best_weights=True)
    late = keras.callbacks.EarlyStopping(
        "other", mode="min", start_from_epoch=12, restore_best_weights=True
    )
    # The other way round too: the monitor is that of the callback to change.
    for stopping in ([early, late], [late, early]):
        _, said = train(SparsityController(0.9, verbose=0), *stopping, first=10)
        [warning] = said
        assert "with the best loss as" in warning
        assert "Give it start_from_epoch=12, or" in warning
    _, said = train(SparsityController(0.9, verbose=0), late, first=10)
    assert said == []


def test_averages_of_the_optimizer_are_other_weights_too(capsys):
    optimizer = keras.optimizers.Adam(0.01, use_ema=True)
    _, said = train(SparsityController(0.9), optimizer=optimizer)
    assert said == []
    assert OTHERS in capsys.readouterr().out


@pytest.mark.parametrize("first", [True, False])
def test_a_floor_restores_its_weights_after_all_other_callbacks(first, capsys):
    scores, stopping = Scores(), first_epoch()
    control = SparsityController(0.9, min_metric=("score", 0.5, "max"))
    both = [control, stopping] if first else [stopping, control]
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_train_end=lambda logs: seen.append(control.model.get_weights())
    )
    weights, said = train(scores, *both[:1], look, *both[1:])
    assert is_same(weights, scores.weights[1])
    # What comes behind it sees them too.
    assert is_same(seen[0], scores.weights[1 if first else 0])
    out = capsys.readouterr().out
    assert out.count("the model has the weights of epoch 2 again") == 1
    assert OTHERS not in out
    assert "Leave restore_best_weights out: the floor restores" in said[-1]


class ValidatedScores(keras.callbacks.Callback):
    """Puts a score of the validation into the logs; keeps the weights that it saw."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_test_batch_end(self, batch, logs=None):
        self.weights.append(self.model.get_weights())

    def on_epoch_end(self, epoch, logs=None):
        logs["val_score"] = (1.0, 1.0, 0.0)[epoch]


@pytest.mark.parametrize(("first", "by_epoch"), [(True, False), (False, True)])
def test_a_floor_restores_the_averages_that_validation_saw(first, by_epoch, capsys):
    scores, swap = ValidatedScores(), keras.callbacks.SwapEMAWeights(by_epoch)
    control = SparsityController(0.9, min_metric=("val_score", 0.5, "max"))
    both = [control, swap] if first else [swap, control]
    optimizer = keras.optimizers.SGD(0.1, use_ema=True)
    weights, _ = train(scores, *both, optimizer=optimizer, validated=True)
    assert len(scores.weights) == 3
    assert is_same(weights, scores.weights[1])
    out = capsys.readouterr().out
    assert "the model has the weights of epoch 2 again" in out
    assert out.count("these weights are the averages that the validation") == 1


def test_a_floor_of_another_figure_restores_the_weights_before_averaging(capsys):
    scores, swap = Scores(), keras.callbacks.SwapEMAWeights()
    control = SparsityController(0.9, min_metric=("score", 0.5, "max"))
    optimizer = keras.optimizers.SGD(0.1, use_ema=True)
    weights, _ = train(scores, control, swap, optimizer=optimizer, validated=True)
    assert is_same(weights, scores.weights[1])
    out = capsys.readouterr().out
    assert "the model has the weights of epoch 2 again" in out
    assert "averages" not in out


@pytest.mark.parametrize(
    ("key", "swaps", "validated", "judged"),
    [
        ("loss", False, False, False),
        ("loss", True, False, False),
        ("loss", True, True, False),
        ("val_loss", False, True, False),
        ("val_loss", True, True, True),
    ],
)
def test_averages_that_a_floor_did_not_judge_are_named(
    key, swaps, validated, judged, capsys
):
    control = SparsityController(0.9, min_metric=(key, 1e9))
    swap = [keras.callbacks.SwapEMAWeights()] if swaps else []
    optimizer = keras.optimizers.SGD(0.1, use_ema=True)
    train(control, *swap, optimizer=optimizer, validated=validated)
    out = capsys.readouterr().out
    assert OTHERS in out
    line = "with use_ema=True these are averages, which the floor did not judge"
    assert (line not in out) == judged
    assert ("Give validation_data, keras.callbacks.SwapEMAWeights()," in out) != judged


def test_of_two_floors_only_one_can_be_kept():
    floors = {"min_metric": ("score", 0.5, "max"), "verbose": 0}
    first = SparsityController(0.9, "hoyer", layers=keras.layers.Dense, **floors)
    _, said = train(Scores(), first, SparsityController(0.9, layers="hidden", **floors))
    assert len(said) == 1
    assert "Give only one of them min_metric= or max_loss_increase=" in said[0]
