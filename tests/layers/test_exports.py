"""Models in every format, in a process that has imported nothing yet.

Exported models run where neither this package nor Keras is, and draw nothing.
"""

import importlib.util
import pathlib
import re
import warnings
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from fresh import random_ops, random_ops_of_file, run_fresh
from keras import layers as kl

from keras_sparseout import (
    Bridgeout,
    Sparseout,
    SpatialSparseout1D,
    SpatialSparseout2D,
    SpatialSparseout3D,
    TargetSparsity,
)

X = np.random.default_rng(0).normal(size=(7, 6, 6, 3)).astype("float32")

HAS_ONNX = all(importlib.util.find_spec(n) for n in ("onnxruntime", "tf2onnx"))

# Runs all exports in a folder, with what each format needs; then loads a model that was
# saved in all formats.
SCRIPT = """
import pathlib, sys

absent = dict.fromkeys(["keras_sparseout", "keras"])
sys.modules.update(absent)
import numpy as np, tensorflow as tf

folder = pathlib.Path(sys.argv[1])
x = np.load(folder / "x.npy")
out = {}
for path in (folder / "exports").iterdir():
    if path.is_dir():
        loaded = tf.saved_model.load(path)
        out[path.name] = loaded.serve(x)
    elif path.suffix == ".tflite":
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            Interpreter = tf.lite.Interpreter
        # For batches of one, as on a phone.
        run = Interpreter(str(path)).get_signature_runner()
        (name,) = run.get_input_details()
        rows = [next(iter(run(**{name: row[None]}).values())) for row in x]
        out[path.name] = np.concatenate(rows)
    elif path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        (given,) = session.get_inputs()
        (out[path.name],) = session.run(None, {given.name: x})

for name in absent:
    del sys.modules[name]
import keras

here = folder / "noisy"
x = np.load(here / "x.npy")
exported, raw = (tf.saved_model.load(here / name) for name in ("exported", "raw"))
out["exported"] = exported.serve(x)
(out["raw"],) = raw.signatures["serving_default"](tf.constant(x)).values()
layer = keras.layers.TFSMLayer(here / "exported", call_endpoint="serve")
out["layer"] = layer(x)
assert "keras_sparseout" not in sys.modules
import keras_sparseout

whole = keras.saving.load_model(here / "model.keras")
rebuilt = keras.models.model_from_json((here / "model.json").read_text())
rebuilt.load_weights(here / "model.weights.h5")
for name, model in {".keras": whole, ".weights.h5": rebuilt}.items():
    out[name + "/predicted"] = model(x)
    out[name + "/continued"] = [model(x, training=True) for _ in range(2)]
np.savez(folder / "fresh.npz", **out)
"""


def network(dtype="float32"):
    """A model with all kinds of thresholds, among the other layers."""
    model = keras.Sequential([keras.Input(X.shape[1:])])
    for layer in (
        kl.Conv2D(4, 3, dtype=dtype),
        TargetSparsity(0.5, dtype=dtype),
        Sparseout(0.3, q=1.5, dtype=dtype),
        kl.Conv2D(4, 2, activation="silu", dtype=dtype),
        TargetSparsity(0.5, axis=-1, soft=True, dtype=dtype),
        kl.Flatten(dtype=dtype),
        kl.Dense(6, dtype=dtype),
        TargetSparsity(0.5, centre="mode", dtype=dtype),
        Bridgeout(kl.Dense(8, "tanh", dtype=dtype), 0.2),
        TargetSparsity(0.5, axis=-1, centre="mode", add_back=False, dtype=dtype),
        Sparseout(0.3, adjustable=True, dtype=dtype),
        kl.Dense(16, dtype=dtype),
        TargetSparsity(0.5, axis=-1, adjustable=True, dtype=dtype),
    ):
        model.add(layer)
        if isinstance(layer, TargetSparsity):
            # As training would leave them.
            each = np.linspace(0.1, 0.3, layer.threshold.numpy().size)
            t = each.reshape(layer.threshold.shape)
            layer.start(t, t / 3 if layer.get_config()["centre"] else None)
    return model


def noisy():
    """A model of every kind of Sparseout, some adjustable, some compiled by XLA."""
    model = keras.Sequential([keras.Input((8,)), kl.Dense(24, "tanh")])
    for layer, shape, adjustable, jit_compile in (
        (Sparseout, (24,), True, True),
        (SpatialSparseout1D, (6, 4), False, True),
        (SpatialSparseout2D, (3, 2, 4), True, False),
        (SpatialSparseout3D, (3, 2, 2, 2), False, False),
    ):
        model.add(kl.Reshape(shape))
        options = {"adjustable": adjustable, "jit_compile": jit_compile}
        model.add(layer(0.3, 1.5, **options))
    model.add(kl.Flatten())
    model.add(kl.Dense(2))
    return model


def save_noisy(folder):
    """Saves that model in every format; returns what it gives."""
    folder.mkdir()
    x = np.random.default_rng(0).normal(size=(6, 8)).astype("float32")
    np.save(folder / "x.npy", x)
    keras.utils.set_random_seed(0)
    model = noisy()
    # Its seeds are not the first ones.
    model(x, training=True)
    for layer in model.layers:
        if getattr(layer, "adjustable", False):
            layer.rate, layer.q = 0.6, 1.2
    (folder / "model.json").write_text(model.to_json())
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    model.export(folder / "exported", verbose=False)
    tf.saved_model.save(model, folder / "raw")
    steps = [model(x, training=True) for _ in range(2)]
    return {"predicted": model(x), "continued": np.stack(steps)}


class Saved(NamedTuple):
    """Where the models are, what they give here and what in a fresh process."""

    folder: pathlib.Path
    predicted: dict[str, np.ndarray]
    noisy: dict[str, np.ndarray]
    fresh: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    np.save(folder / "x.npy", X)
    exports = folder / "exports"
    predicted = {}
    for dtype in ("float16", "float32"):
        keras.utils.set_random_seed(0)
        model = network(dtype)
        predicted[dtype] = np.asarray(model(X))
        model.export(exports / dtype, verbose=False)
    predicted["model.tflite"] = predicted["float32"]
    model.export(exports / "model.tflite", format="litert", verbose=False)
    if HAS_ONNX:
        predicted["model.onnx"] = predicted["float32"]
        with warnings.catch_warnings():
            # Keras looks for np.object where it mends tf2onnx.
            warnings.simplefilter("ignore", FutureWarning)
            model.export(exports / "model.onnx", format="onnx", verbose=False)
    given = save_noisy(folder / "noisy")
    return Saved(folder, predicted, given, dict(run_fresh(folder, SCRIPT)))


@pytest.mark.parametrize("name", ["float32", "float16", "model.tflite", "model.onnx"])
def test_an_export_is_the_model_where_the_package_is_not(saved, name):
    if name == "model.onnx" and not HAS_ONNX:
        pytest.skip("needs onnxruntime and tf2onnx")
    predicted, returned = saved.predicted[name], saved.fresh[name]
    assert returned.dtype == predicted.dtype
    np.testing.assert_allclose(returned, predicted, rtol=0, atol=1e-5)
    # The last layer is a threshold.
    assert 0.05 < np.mean(predicted == 0) < 0.95
    np.testing.assert_array_equal(returned == 0, predicted == 0)


def test_an_export_compares_and_selects(saved):
    served = tf.saved_model.load(saved.folder / "exports" / "float32")
    graph = served.signatures["serving_default"].graph.as_graph_def()
    assert random_ops(graph) == []
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    operations = {node.op for node in nodes}
    assert {"LessEqual", "SelectV2"} <= operations
    unwanted = re.compile("Sort|TopK|Assign|Random|Histogram|Cumsum|While|If$")
    assert not [op for op in operations if unwanted.search(op)]


@pytest.mark.parametrize("file", [".keras", ".weights.h5"])
def test_a_fresh_process_predicts_and_trains_on_alike(saved, file):
    for what, expected in saved.noisy.items():
        np.testing.assert_allclose(saved.fresh[f"{file}/{what}"], expected, rtol=1e-5)


@pytest.mark.parametrize("form", ["exported", "raw", "layer"])
def test_a_saved_model_needs_no_import(saved, form):
    expected = saved.noisy["predicted"]
    np.testing.assert_allclose(saved.fresh[form], expected, rtol=1e-5)


@pytest.mark.parametrize("form", ["exported", "raw"])
def test_a_saved_model_holds_no_random_op(saved, form):
    assert not random_ops_of_file(saved.folder / "noisy" / form)


@pytest.mark.parametrize("options", [{}, {"axis": -1}, {"centre": "mode"}])
def test_tensorflow_saves_thresholds_too(tmp_path, options):
    """As a trackable of its own, beside `model.export`, which needs no tracking."""
    cut = TargetSparsity(0.5, **options)
    model = keras.Sequential([keras.Input((6, 6, 3)), cut])
    model(X, training=True)
    tf.saved_model.save(model, tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    found = loaded.signatures["serving_default"](tf.constant(X))
    np.testing.assert_array_equal(*found.values(), model(X))
