"""What the epochs and the logs of a run must have for a floor of accuracy."""

import keras
import pytest
from controlled import X, Y, classifier

from keras_sparseout import SparsityController
from keras_sparseout.callbacks.control import accuracy_floor
from keras_sparseout.callbacks.control.messages import ControllerMessages


def floor_of(epochs=12):
    asked = None, 0.1, epochs, 0.5
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
