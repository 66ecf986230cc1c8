"""Models of every layer as files, such as those of earlier versions in `tests/data`.

    python tests/helpers/stored.py FOLDER

writes them as the installed version saves them: for each layer a folder in FOLDER, and
for the streaming metrics `metrics.json`.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np

import keras_sparseout as ks
from keras_sparseout.layers.adjustable import AdjustableLayer
from keras_sparseout.measure import layer_selection

L = keras.layers
FILES = Path(__file__).parents[1] / "data"
# What is set in the adjustable twin, away from what its config once was.
KNOBS = {
    **{"rate": 0.25, "recurrent_rate": 0.125, "q": 1.75},
    **{"weight": 0.0625, "c": 0.375, "target": 0.75},
}
CONTROLLER_STATE = [1.5, -2.0, 0.25]


def _in_sequences(layer):
    return lambda **kwargs: L.RNN(layer(**kwargs), return_sequences=True)


def _cell(**kwargs):
    cell = L.LSTMCell(3, dropout=0.1, seed=5)
    return ks.SparseoutCellWrapper(cell, 0.3, 0.2, q=1.5, seed=1, **kwargs)


def _stacked(**kwargs):
    cells = L.StackedRNNCells([L.GRUCell(3, dropout=0.1, seed=5), L.SimpleRNNCell(2)])
    return ks.SparseoutCellWrapper(cells, 0.3, 0.2, q=1.5, seed=1, **kwargs)


# Each with the shape of its inputs.
LAYERS = {
    "sparseout": ((6,), lambda **k: ks.Sparseout(0.3, 1.5, (None, 1), seed=1, **k)),
    "spatial_1d": ((4, 3), lambda **k: ks.SpatialSparseout1D(0.3, 1.5, seed=1, **k)),
    "spatial_2d": ((3, 2, 3), lambda **k: ks.SpatialSparseout2D(0.3, 3, seed=1, **k)),
    "spatial_3d": ((2, 2, 2, 3), lambda **k: ks.SpatialSparseout3D(0.3, seed=1, **k)),
    "penalty": ((6,), lambda **k: ks.ActivationPenalty(0.01, "hoyer_square", **k)),
    "penalty_tar": ((4, 3), lambda **k: ks.ActivationPenalty(0.01, "tar", **k)),
    "target_sparsity": ((6,), lambda **k: ks.TargetSparsity(0.5, **k)),
    "target_sparsity_mode": (
        (4, 3),
        lambda **k: ks.TargetSparsity(0.5, axis=-1, centre="mode", **k),
    ),
    "cell": ((4, 3), _in_sequences(_cell)),
    "cells": ((4, 3), _in_sequences(_stacked)),
    "bridgeout": ((6,), lambda **k: ks.Bridgeout(L.Dense(4), 0.3, 1.5, seed=1, **k)),
    "bridgeout_lstm": (
        (4, 3),
        lambda **k: ks.Bridgeout(
            L.LSTM(3, dropout=0.1, seed=5),
            *(0.3, 1.5, ("recurrent_kernel",)),
            seed=1,
            **k,
        ),
    ),
    "shakeout": ((6,), lambda **k: ks.Shakeout(L.Dense(4), 0.3, 0.1, seed=1, **k)),
}

METRICS = {
    "dead_units": lambda: ks.metrics.DeadUnits(threshold=0.1),
    "firing_rate": lambda: ks.metrics.FiringRate(threshold=0.1, units=4),
    "gini": lambda: ks.metrics.Gini(),
    "histogram": lambda: ks.metrics.ActivationHistogram(),
    "hoyer": lambda: ks.metrics.Hoyer(axis=None),
    "kurtosis": lambda: ks.metrics.Kurtosis(),
    "lifetime_sparseness": lambda: ks.metrics.LifetimeSparseness(),
    "population_sparseness": lambda: ks.metrics.PopulationSparseness(),
    "pq_index": lambda: ks.metrics.PQIndex(p=0.5, q=1.0),
    "rms": lambda: ks.metrics.RMS(),
    "sample_mean": lambda: ks.metrics.SampleMean(ks.metrics.hoyer),
    "zero_fraction": lambda: ks.metrics.ZeroFraction(threshold=0.1, relative=True),
}
ACTIVATIONS = np.maximum(np.random.default_rng(0).normal(size=(9, 4)), 0)


def build(name):
    """A model of a layer with constant knobs and one with adjustable ones."""
    shape, layer = LAYERS[name]
    inputs = keras.Input(shape, name="x")
    branches = []
    for kind in ("constant", "adjustable"):
        x = L.Dense(shape[-1], "tanh", name=f"dense_{kind}")(inputs)
        branches.append(L.Flatten()(layer(adjustable=kind == "adjustable")(x)))
    model = keras.Model(inputs, L.Dense(2, name="head")(L.Concatenate()(branches)))
    model.compile("sgd", "mse")
    return model


def ours(model):
    """The layers of this package in a model, those inside of others too."""
    found = [w.layer for w in layer_selection.all_layers(model)]
    return [layer for layer in found if isinstance(layer, AdjustableLayer)]


def states(model):
    """What files keep of the layers of this package besides weights, as lists."""
    return [
        {
            "knobs": {name: getattr(layer, name) for name in layer.knobs},
            "seed": layer.seed_generator.state.numpy().tolist()
            if hasattr(layer, "seed_generator")
            else None,
            "controller": None
            if layer.controller_state is None
            else layer.controller_state.tolist(),
        }
        for layer in ours(model)
    ]


def write(folder):
    """Writes each model in every format, and what is to come back."""
    for number, (name, (shape, _)) in enumerate(LAYERS.items()):
        keras.utils.set_random_seed(number)
        model = build(name)
        x = np.random.default_rng(number).normal(size=(5, *shape)).astype("float32")
        for layer in ours(model):
            if layer.adjustable:
                layer.controller_state = CONTROLLER_STATE
                for knob in layer.knobs:
                    setattr(layer, knob, KNOBS[knob])
        model.train_on_batch(x, np.ones((5, 2)))
        here = Path(folder) / name
        here.mkdir(parents=True)
        model.save(here / "model.keras")
        model.save_weights(here / "model.weights.h5")
        model.export(here / "exported", verbose=False)
        np.savez(here / "predictions.npz", x=x, y=model.predict(x, verbose=0))
        (here / "states.json").write_text(json.dumps(states(model), indent=1) + "\n")
    metrics = {}
    for name, make in METRICS.items():
        metric = make()
        metric.update_state(ACTIVATIONS)
        metrics[name] = {
            "config": keras.saving.serialize_keras_object(metric),
            "result": keras.tree.map_structure(_plain, metric.result()),
        }
    text = json.dumps(metrics, indent=1)
    (Path(folder) / "metrics.json").write_text(text + "\n")


def _plain(result):
    return np.asarray(result).tolist()


if __name__ == "__main__":
    write(sys.argv[1])
