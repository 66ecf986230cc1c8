"""What the epochs and the logs of a run must have for a floor of accuracy."""

import keras
import pytest
from controlled import X, Y, classifier

from keras_sparseout import SparsityController
from keras_sparseout.callbacks.control import accuracy_floor
from keras_sparseout.callbacks.control.accuracy_floor import Outcome
from keras_sparseout.callbacks.control.messages import ControllerMessages


def floor_of(epochs=12, min_metric=None, max_loss_increase=0.1):
    asked = min_metric, max_loss_increase, epochs, 0.5
    return accuracy_floor.prepared(classifier(), *asked, ControllerMessages())


@pytest.mark.parametrize(
    ("epochs", "first", "received"),
    [(1, 0, "epochs=1 with"), (6, 5, "epochs=6, initial_epoch=5 with")],
)
def test_a_run_of_one_epoch_is_an_error(epochs, first, received):
    model = classifier(regularizer=lambda name: keras.layers.ReLU())
    model.compile("sgd", "mse", run_eagerly=True)
    controller = SparsityController(0.5, max_loss_increase=0.1, verbose=0)
    options = {"epochs": epochs, "initial_epoch": first, "verbose": 0}
    with pytest.raises(ValueError, match="`epochs` must be at least") as error:
        model.fit(X[:32], Y[:32], callbacks=[controller], **options)
    assert f"Received: {received} max_loss_increase=0.1." in str(error.value)
    assert f"epochs={first + 8}, steps_per_epoch=50" in str(error.value)
    floor_of(epochs + 1).check_epochs(first)
    floor_of(None).check_epochs(first)


@pytest.mark.parametrize(
    ("logs", "remedy"),
    [
        ({"g_loss": 1.0}, "min_metric=('g_loss', 0.5, 'min')"),
        ({"acc": 1.0, "d_loss": 1.0}, "min_metric=('d_loss', 0.5, 'min')"),
        ({"acc": 1.0}, "or give `min_metric`"),
        ({}, "or give `min_metric`"),
    ],
)
def test_without_a_loss_the_remedy_is_one_that_a_number_allows(logs, remedy):
    with pytest.raises(ValueError, match="Return 'loss' from `train_step`") as error:
        floor_of().end_epoch(0, logs, [])
    assert "Received: max_loss_increase=0.1, while the logs have" in str(error.value)
    assert remedy in str(error.value)
    assert "Did you mean" not in str(error.value)


def test_a_floor_of_validation_begins_with_the_first_epoch_that_has_one():
    model = classifier(regularizer=lambda name: keras.layers.ReLU())
    controller = SparsityController(0.9, min_metric=("val_mae", 99.0))
    data = {"validation_data": (X[:32], Y[:32]), "validation_freq": 2}
    model.compile("sgd", "mse", metrics=["mae"], jit_compile=False)
    options = {"batch_size": 32, "epochs": 4, "verbose": 0, **data}
    with pytest.warns(
        UserWarning, match="nothing is moved until an epoch is validated"
    ):
        history = model.fit(X, Y, callbacks=[controller], **options).history
    key = next(key for key in history if key.startswith("penalty/"))
    assert history[key][:2] == [0, 0] < history[key][2:]


WAITS = "ignore:.*nothing is moved until an epoch is validated"


@pytest.mark.filterwarnings(WAITS)
def test_with_two_limits_the_loss_is_that_of_the_first_validation():
    floor = floor_of(4, ("val_acc", 0.5, "max"))
    outcome = [Outcome("zeros of a", 0.9, 0.5)]
    floor.end_epoch(0, {"loss": 1.0}, outcome)
    floor.end_epoch(1, {"loss": 1.0, "val_loss": 3.0, "val_acc": 0.6}, outcome)
    assert floor.numbers()[1][0, :4].tolist() == [1, 0.6, 3.0, True]


@pytest.mark.filterwarnings(WAITS)
@pytest.mark.parametrize(
    ("epochs", "before", "logs", "remedy"),
    [
        (
            2,
            [],
            {"loss": 1.0},
            "Give fit validation_data, and validate an epoch before",
        ),
        (3, [{}], {"loss": 1.0}, "Give fit validation_data, and validate an epoch"),
        (9, [{}], {"loss": 1.0, "val_loss": 1.0}, "or name the metric in `compile`"),
    ],
)
def test_a_metric_that_no_validation_brings_in_time_is_an_error(
    epochs, before, logs, remedy
):
    floor = floor_of(epochs, ("val_acc", 0.5, "max"), None)
    for epoch, earlier in enumerate(before):
        floor.end_epoch(epoch, earlier, [])
    with pytest.raises(ValueError, match="validated before the last") as error:
        floor.end_epoch(len(before), logs, [])
    assert remedy in str(error.value)
