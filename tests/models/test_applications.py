"""Models of keras.applications: changed, and changed back."""

import keras
import numpy as np
from rebuilt import assert_same_outputs, layers_in

import keras_sparseout as ks
from keras_sparseout.models import insert, replace_dropout, strip

IMAGES = np.random.default_rng(0).normal(120, 50, (2, 32, 32, 3)).astype("float32")


def test_mobile_net_v2_gets_layers_and_loses_them():
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None)
    new = insert(model, {"block_.*_expand_relu": lambda _: ks.TargetSparsity(0.5)})
    assert len(new.layers) == len(model.layers) + 16
    plain = strip(new, verbose=0)
    assert [layer.name for layer in plain.layers] == [v.name for v in model.layers]
    assert_same_outputs(model, plain, IMAGES)


def test_dropout_of_mobile_net_is_replaced():
    model = keras.applications.MobileNet((32, 32, 3), alpha=0.25, weights=None)
    new = replace_dropout(model, 1.5, verbose=0)
    assert_same_outputs(model, new, IMAGES)
    [name] = [k for k, v in layers_in(new).items() if isinstance(v, ks.Sparseout)]
    assert isinstance(model.get_layer(name), keras.layers.Dropout)
