"""What SparsityController refuses, and what it says."""

import keras
import pytest
from controlled import X, classifier, fit

from keras_sparseout import Bridgeout, Sparseout, SparsityController, metrics


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((1.5,), {}, ["`target`", "between 0 and 1", "Received: target=1.5"]),
        ((0,), {}, ["`target`", "Received: target=0"]),
        (("high",), {}, ["`target`", "Received: target='high'"]),
        (({},), {}, ["`target`", "at least one layer"]),
        (({"hidden": 2},), {}, ["`target`", "Received: target={'hidden': 2}"]),
        ((1.5, metrics.hoyer), {}, ["`target`", "between 0 and 1"]),
        ((1.5, metrics.Gini()), {}, ["`target`", "between 0 and 1"]),
        ((0.5, "hoyr"), {}, ["`metric`", "Did you mean 'hoyer'?"]),
        ((0.5, "firing_rate"), {}, ["`metric`", "rises with sparsity"]),
        ((0.5, ["hoyer"]), {}, ["`metric`", "Received: metric=['hoyer']"]),
        ((0.5, metrics.ActivationHistogram()), {}, ["`metric`", "one name or func"]),
        (({"a": 0.5, "b": 0.6},), {"together": True}, ["`target`", "together=False"]),
        ((0.5,), {"actuator": ["q"]}, ["`actuator`", "Received: actuator=['q']"]),
        ((0.5,), {"actuator": "p"}, ["`actuator`", "q, rate, weight"]),
        ((0.5,), {"bounds": (4, 1)}, ["`bounds`", "Received: bounds=(4, 1)"]),
        ((0.5,), {"bounds": 3}, ["`bounds`", "Received: bounds=3"]),
        ((0.5,), {"bounds": (-1, 2)}, ["`bounds`", "within [0.01, 100]"]),
        ((0.5,), {"every": 0}, ["`every`", "Received: every=0"]),
        ((0.5,), {"gain": 0}, ["`gain`", "Received: gain=0"]),
        ((0.5,), {"dead_band": -1}, ["`dead_band`", "Received: dead_band=-1"]),
        ((0.5,), {"freeze_after": 0}, ["`freeze_after`", "Received: freeze_after=0"]),
        ((0.5,), {"max_dead": 2}, ["`max_dead`", "Received: max_dead=2"]),
        ((0.5,), {"together": 1}, ["`together`", "Received: together=1"]),
        ((0.5,), {"sample_size": 0}, ["`sample_size`", "Received: sample_size=0"]),
        ((0.5,), {"x": X[:0]}, ["`x`", "at least one sample"]),
    ],
)
def test_bad_arguments_say_what_to_do(args, kwargs, says):
    with pytest.raises(ValueError, match="Received") as error:
        SparsityController(*args, **kwargs)
    for words in says:
        assert words in str(error.value)


def test_layers_that_cannot_be_moved_show_the_change():
    constant = classifier(regularizer=lambda name: Sparseout(0.5, q=1.5, name=name))
    for layers in (None, ["hidden"]):
        with pytest.raises(ValueError, match="`layers` must be adjustable") as error:
            fit(constant, SparsityController(0.5, layers=layers))
        assert "Received: hidden with adjustable=False" in str(error.value)
        call = "Make it Sparseout(0.5, q=1.5, name='hidden', adjustable=True)"
        assert call in str(error.value)
    dropout = classifier(regularizer=lambda name: keras.layers.Dropout(0.5, name=name))
    with pytest.raises(ValueError, match=r"Put Sparseout\(0.5, adjustable=True\)"):
        fit(dropout, SparsityController(0.5))
    with pytest.raises(
        ValueError, match=r"Put ActivationPenalty\(1e-4, adjustable=True"
    ):
        fit(classifier(), SparsityController(0.5, actuator="weight"))
    with pytest.raises(ValueError, match=r"layers='hiden'.*Did you mean 'hidden'"):
        fit(classifier(), SparsityController({"hiden": 0.5}))


def test_probe_data_must_fit():
    with pytest.raises(
        ValueError, match="`x` must have the shape of the model's inputs"
    ):
        fit(classifier(), SparsityController(0.5, x=X[:, :5]))


def test_noise_on_weights_is_not_what_is_moved():
    model = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(64, "relu"),
            Sparseout(0.5, adjustable=True, name="hidden"),
            Bridgeout(keras.layers.Dense(3), 0.1, adjustable=True, name="out"),
        ]
    )
    controller = SparsityController(0.7, every=8, verbose=0)
    fit(model, controller, epochs=1)
    assert list(controller.targets) == ["hidden"]
    assert model.get_layer("hidden").q != 2
    assert model.get_layer("out").q == 2
    with pytest.raises(ValueError, match=r"adjustable q. Received: layers=out\. Put"):
        fit(model, SparsityController(0.7, layers="out"))
    # None was named.
    with pytest.raises(ValueError, match=r"Received: layers=None, for \w+, hidden, "):
        fit(model, SparsityController(0.7, actuator="weight"))


def test_one_rate_cannot_move_layers_both_ways():
    qs = {"first": 1.0, "second": 4.0}
    model = classifier(
        regularizer=lambda name: Sparseout(0.5, q=qs[name], adjustable=True, name=name),
        names=tuple(qs),
    )
    with pytest.raises(ValueError, match="`together` must be False") as error:
        fit(model, SparsityController(0.7, actuator="rate", together=True))
    assert "first of q=1, second of q=4. Give each" in str(error.value)
    fit(model, SparsityController(0.7, actuator="rate", every=8), epochs=1)
    assert model.get_layer("first").rate > 0.5 > model.get_layer("second").rate
