"""A floor of accuracy: the search below it, its limits, and the weights it restores."""

import functools
import itertools
import math

import batched
import keras
import numpy as np
import pytest
from controlled import X, Y, classifier

from keras_sparseout import ActivationPenalty, SparsityController
from keras_sparseout.callbacks.control import accuracy_floor
from keras_sparseout.callbacks.control.accuracy_floor import Outcome
from keras_sparseout.callbacks.control.messages import ControllerMessages


def tiny():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(loss="mse", metrics=["mae", "accuracy"], run_eagerly=True)
    # Makes the metrics.
    model.test_on_batch(np.ones((2, 1)), np.ones((2, 1)))
    return model


shared = functools.cache(tiny)


def floor_of(min_metric=None, max_loss_increase=None, epochs=12, model=None):
    asked = min_metric, max_loss_increase, epochs, 0.5
    return accuracy_floor.prepared(model or shared(), *asked, ControllerMessages())


def run(floor, accuracy, *, target=0.9, start=0.4, epochs=12, first=0):
    """Lets the figure follow the aim; returns the figures of the epochs.

    Args:
        floor: The floor.
        accuracy: Function from the epoch and the figure to the logs.
        target: The target.
        start: The figure without a push.
        epochs: How many epochs.
        first: The number of the first one.
    """
    figures = []
    for epoch in range(first, first + epochs):
        figures.append(start if floor.aims is None else float(floor.aims[0]))
        outcome = Outcome("zeros of a", target, figures[-1])
        floor.end_epoch(epoch, accuracy(epoch, figures[-1]), [outcome])
    return figures


def cliff(at):
    """Returns logs whose accuracy falls below 0.87 where the figure is above `at`."""
    return lambda epoch, figure: {"val_accuracy": 0.88 - 0.5 * max(0, figure - at)}


@pytest.mark.parametrize("at", [0.45, 0.6, 0.71, 0.85])
def test_it_settles_at_the_sparsest_point_that_keeps_the_floor(at):
    floor = floor_of(("val_accuracy", 0.87), epochs=24)
    figures = run(floor, cliff(at), epochs=24)
    edge = at + 0.02
    assert edge - 0.03 < figures[-1] <= edge
    late = figures[18:]
    assert all(b <= a for a, b in itertools.pairwise(late))


@pytest.mark.parametrize("first", [5, 30, 300])
def test_epochs_before_the_initial_one_do_not_count(first):
    floors = floor_of(("val_accuracy", 0.87)), floor_of(("val_accuracy", 0.87))
    floors[1]._run_epochs += first
    figures = [
        run(f, cliff(0.6), first=n) for f, n in zip(floors, (0, first), strict=True)
    ]
    assert figures[0] == figures[1]
    assert figures[0][-1] < 0.65


def test_targets_are_reached_by_steps_where_nothing_breaks():
    figures = run(floor_of(("val_accuracy", 0.5)), cliff(0.8))
    # 11 epochs are left after the first one; a half of them is 6 (5.5 rounded to even).
    steps = 0.4 + 0.5 * np.minimum(np.arange(12) / 6, 1)
    np.testing.assert_allclose(figures, steps)


@pytest.mark.parametrize(
    ("accuracy", "by_steps"),
    [
        (cliff(0.95), True),
        (cliff(0.6), False),
        (lambda epoch, figure: {"val_accuracy": 0.8 + 0.01 * epoch}, False),
    ],
    ids=["kept", "broken", "late"],
)
def test_whether_the_aims_went_by_steps_alone(accuracy, by_steps):
    floor = floor_of(("val_accuracy", 0.87))
    assert not floor.by_steps
    run(floor, accuracy)
    assert floor.by_steps == by_steps


def test_a_target_below_the_start_is_approached_from_above():
    floor = floor_of(("accuracy", 0.87), epochs=24)

    def accuracy(epoch, figure):
        return {"accuracy": 0.88 if figure > 0.33 else 0.8}

    figures = run(floor, accuracy, target=0.1, start=0.5, epochs=24)
    assert 0.33 < figures[-1] < 0.36


def test_nothing_is_pushed_until_an_epoch_kept_the_floor(capsys):
    floor = floor_of(("val_accuracy", 0.87), epochs=10)
    figures = run(floor, lambda e, f: {"val_accuracy": 0.8 + 0.01 * e}, epochs=10)
    # Epoch 7 has .87.
    assert figures[:8] == [0.4] * 8
    assert figures[8] == pytest.approx(0.4 + 0.5 / 4)
    floor.conclude([Outcome("zeros of a", 0.9, figures[-1])])
    assert "epoch 8 was the first that kept the floor" in capsys.readouterr().out


def test_a_floor_that_is_never_kept_is_told():
    floor = floor_of(("val_accuracy", 0.87))
    assert run(floor, lambda epoch, f: {"val_accuracy": 0.86}) == [0.4] * 12
    says = r"no epoch kept the floor, val_accuracy >= 0.87.* The best was .* 0\.86\."
    with pytest.warns(UserWarning, match=says):
        floor.conclude([Outcome("zeros of a", 0.9, 0.4)])
    assert floor.restore() is None


def test_a_broken_epoch_that_was_refuted_no_longer_counts():
    # The first push is a shock, later the model stands more.
    floor = floor_of(("val_accuracy", 0.87), epochs=40)

    def accuracy(epoch, figure):
        return {"val_accuracy": 0.8 if epoch == 1 else 0.88}

    assert run(floor, accuracy, epochs=40)[-1] == pytest.approx(0.9, abs=0.03)


def test_a_loss_may_rise_above_the_lowest_by_a_share(capsys):
    floor = floor_of(max_loss_increase=0.1, epochs=24)

    def loss(epoch, figure):
        falls = 0.4 + 0.6 * 0.5**epoch
        return {"loss": 9.0, "val_loss": falls * (1 + max(0, figure - 0.6))}

    figures = run(floor, loss, epochs=24)
    losses = [loss(epoch, figure)["val_loss"] for epoch, figure in enumerate(figures)]
    assert figures[-1] > 0.67
    assert 1.07 * min(losses) < losses[-1] <= 1.1 * min(losses)
    floor.conclude([Outcome("zeros of a", 0.9, figures[-1])])
    out = capsys.readouterr().out
    assert "stopped at" in out
    assert "of 0.9: the loss budget is spent, val_loss" in out
    assert "more than 10 % above the lowest" in out


def test_a_negative_loss_rises_by_a_share_of_its_size():
    floor = floor_of(max_loss_increase=0.1)
    for epoch, loss in enumerate((-2.0, -1.85, -1.75, math.nan)):
        floor.end_epoch(epoch, {"loss": loss}, [Outcome("zeros of a", 0.9, 0.5)])
    assert [epoch.kept for epoch in floor._epochs] == [True, True, False, False]


@pytest.mark.parametrize(
    ("min_metric", "worse", "better"),
    [
        (("val_accuracy", 0.5), 0.4, 0.6),
        (("val_mae", 0.5), 0.6, 0.4),
        (("val_loss", 0.5), 0.6, 0.4),
        (("val_score", 0.5, "max"), 0.4, 0.6),
        (("val_score", 0.5, "min"), 0.6, 0.4),
    ],
)
def test_which_is_better_follows_from_the_name(min_metric, worse, better):
    floor = floor_of(min_metric)
    for epoch, value in enumerate((worse, better)):
        floor.end_epoch(epoch, {min_metric[0]: value}, [Outcome("a", 0.9, 0.5)])
        assert floor.waits == (epoch == 0)


def test_the_weights_of_the_sparsest_epoch_that_keeps_the_floor_come_back(capsys):
    model = tiny()
    floor = floor_of(("val_accuracy", 0.87), model=model)
    epochs = [(0.88, 0.5), (0.89, 0.6), (0.88, 0.55), (0.8, 0.7)]
    for epoch, (value, figure) in enumerate(epochs):
        model.set_weights([np.full((1, 1), epoch), np.zeros(1)])
        control = [np.array([epoch])]
        outcome = [Outcome("zeros of a", 0.9, figure)]
        floor.end_epoch(epoch, {"val_accuracy": value}, outcome, control)
    figures, control = floor.restore()
    assert (figures, control) == ([0.6], [[1]])
    assert model.get_weights()[0] == 1
    assert "the model has the weights of epoch 2 again" in capsys.readouterr().out
    # A last epoch that keeps the floor stays.
    floor.end_epoch(4, {"val_accuracy": 0.9}, [Outcome("zeros of a", 0.9, 0.4)])
    assert floor.restore() is None


def test_a_lower_loss_later_lets_go_of_weights_that_were_kept():
    floor = floor_of(max_loss_increase=0.1)
    for epoch, (loss, figure) in enumerate([(1.0, 0.5), (0.5, 0.4), (0.7, 0.8)]):
        floor.end_epoch(epoch, {"loss": loss}, [Outcome("zeros of a", 0.9, figure)])
    figures, _ = floor.restore()
    assert figures == [0.4]


def test_epochs_without_validation_decide_nothing():
    floor = floor_of(("val_accuracy", 0.87))
    for epoch, logs in enumerate(({"val_accuracy": 0.9}, {}, {"val_accuracy": 0.9})):
        before = floor.aims
        floor.end_epoch(epoch, logs, [Outcome("zeros of a", 0.9, 0.5)])
        assert (floor.aims is before) == (epoch == 1)


@pytest.mark.parametrize("at", [1, 4, 10])
def test_a_resumed_run_equals_one_that_was_not_interrupted(at):
    def accuracy(epoch, figure):
        value = 0.88 - 0.5 * max(0, figure - 0.63 + 0.01 * (epoch % 3))
        return {"val_accuracy": value, "val_loss": 1 - value, "loss": 1.0}

    asked = ("val_accuracy", 0.87), 0.2
    whole, first, resumed = (floor_of(*asked) for _ in range(3))
    expected = run(whole, accuracy)
    outcomes = [[Outcome("zeros of a", 0.9, figure)] for figure in expected]
    for epoch, figure in enumerate(expected[:at]):
        control = [np.array(epoch)]
        first.end_epoch(epoch, accuracy(epoch, figure), outcomes[epoch], control)
    resumed.resume(first.numbers(), first.held_weights)
    for epoch in range(at, 12):
        assert resumed.aims == expected[epoch]
        logs = accuracy(epoch, expected[epoch])
        resumed.end_epoch(epoch, logs, outcomes[epoch], [np.array(epoch)])
    for a, b in zip(whole.numbers()[:4], resumed.numbers()[:4], strict=True):
        np.testing.assert_array_equal(a, b)
    assert resumed.held_weights


class Logs(keras.callbacks.Callback):
    """Puts a score into the logs, which falls once the layers are pushed."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = 1.0 if epoch < 3 else 0.0
        self.weights.append(self.model.get_weights())


def penalty(name):
    return ActivationPenalty(0.0, adjustable=True, name=name)


def train(model, *callbacks, epochs=6):
    keras.utils.set_random_seed(0)
    options = {"batch_size": 32, "epochs": epochs, "verbose": 0}
    return model.fit(X, Y, callbacks=list(callbacks), **options)


def test_fit_ends_with_the_weights_and_the_setting_that_kept_the_floor(capsys):
    model, scores = classifier(regularizer=lambda name: keras.layers.ReLU()), Logs()
    model.compile("sgd", "mse", jit_compile=False)
    controller = SparsityController(0.9, min_metric=("score", 0.5, "max"))
    # A callback before it has the score in the logs.
    history = train(model, scores, controller).history
    for now, then in zip(model.get_weights(), scores.weights[2], strict=True):
        np.testing.assert_array_equal(now, then)
    key = next(key for key in history if key.startswith("penalty/"))
    zeros = next(history[key] for key in history if key.startswith("zero_fraction/"))
    assert history[key][0] == 0 < history[key][1]
    assert zeros[2] > zeros[0] + 0.05
    out = capsys.readouterr().out
    assert "the model has the weights of epoch 3 again" in out
    assert f"stopped at {zeros[2]:.3f} of 0.9: score 0 is below the floor 0.5" in out


def test_a_run_that_was_too_short_for_the_steps_says_so(capsys):
    model = classifier(regularizer=lambda name: keras.layers.ReLU())
    model.compile("sgd", "mse", jit_compile=False)
    controller = SparsityController(0.9, min_metric=("loss", 1e9))
    batched.fit(model, X, Y, epochs=3, verbose=0, callbacks=[controller])
    out = capsys.readouterr().out
    assert "the run of 60 batches ended before zero_fraction of " in out
    assert "a quarter of the way an epoch. Give more epochs" in out
    assert "too few" not in out


def test_fit_by_a_loop_ends_with_the_setting_that_kept_the_floor(capsys):
    model, scores = classifier(regularizer=penalty), Logs()
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    asked = ("score", 0.5, "max")
    controller = SparsityController(0.9, min_metric=asked, bounds=(0, 10))
    history = train(model, scores, controller).history
    weight = history["weight/hidden"]
    assert weight[0] == 0 < weight[1] < weight[2]
    assert model.get_layer("hidden").weight == pytest.approx(weight[2])
    assert f"at weight = {weight[2]:.3g}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kwargs", "epochs", "says"),
    [
        (
            {"min_metric": ("val_loss", 0.5)},
            2,
            ["min_metric=('val_loss', 0.5)", "have loss", "validation_data"],
        ),
        ({"min_metric": ("los", 0.5)}, 2, ["have loss", "Did you mean 'loss'?"]),
        (
            {"max_loss_increase": 0.5, "actuator": "weight"},
            2,
            ["`max_loss_increase`", 'actuator="weight"', "Give min_metric="],
        ),
    ],
)
def test_what_can_not_be_kept_is_an_error(kwargs, epochs, says):
    model = classifier(regularizer=penalty)
    model.compile("sgd", "mse", run_eagerly=True)
    controller = SparsityController(0.5, **kwargs, verbose=0)
    with pytest.raises(ValueError, match="Received") as error:
        model.fit(X[:32], Y[:32], epochs=epochs, verbose=0, callbacks=[controller])
    for words in says:
        assert words in str(error.value)


def test_a_metric_that_keras_does_not_know_needs_a_third_word():
    with pytest.raises(ValueError, match=r"Give min_metric=\('bleu', 0.3, 'max'\)"):
        run(floor_of(("bleu", 0.3)), lambda epoch, figure: {"bleu": 0.2})


@pytest.mark.parametrize(
    "kwargs",
    [
        {"min_metric": "val_accuracy"},
        {"min_metric": ("val_accuracy",)},
        {"min_metric": (0.5, "val_accuracy")},
        {"min_metric": ("val_accuracy", math.nan)},
        {"min_metric": ("val_accuracy", 0.5, "up")},
        {"max_loss_increase": 0},
        {"max_loss_increase": "5 %"},
    ],
)
def test_bad_arguments_say_what_to_do(kwargs):
    [name] = kwargs
    with pytest.raises(ValueError, match=f"`{name}` must be.* Received: {name}="):
        SparsityController(0.5, **kwargs)
