"""Exported models run where neither this package nor Keras is, and draw nothing."""

import importlib.util
import pathlib
import re
import subprocess
import sys
import warnings
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from fresh import random_ops
from keras import layers as kl

from keras_sparseout import Bridgeout, Sparseout, TargetSparsity

X = np.random.default_rng(0).normal(size=(7, 6, 6, 3)).astype("float32")

HAS_ONNX = all(importlib.util.find_spec(n) for n in ("onnxruntime", "tf2onnx"))

# Runs all that is in a folder, with what each format needs.
SCRIPT = """
import pathlib, sys

sys.modules["keras_sparseout"] = sys.modules["keras"] = None
import numpy as np, tensorflow as tf

folder = pathlib.Path(sys.argv[1])
x = np.load(folder / "x.npy")
out = {}
for path in folder.iterdir():
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
np.savez(folder / "out.npz", **out)
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


class Exported(NamedTuple):
    """Where exports are, and what their models predict, by name of the export."""

    folder: pathlib.Path
    predicted: dict[str, np.ndarray]
    returned: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    np.save(folder / "x.npy", X)
    predicted = {}
    for dtype in ("float16", "float32"):
        keras.utils.set_random_seed(0)
        model = network(dtype)
        predicted[dtype] = model.predict(X, verbose=0)
        model.export(folder / dtype, verbose=False)
    predicted["model.tflite"] = predicted["float32"]
    model.export(folder / "model.tflite", format="litert", verbose=False)
    if HAS_ONNX:
        predicted["model.onnx"] = predicted["float32"]
        with warnings.catch_warnings():
            # Keras looks for np.object where it mends tf2onnx.
            warnings.simplefilter("ignore", FutureWarning)
            model.export(folder / "model.onnx", format="onnx", verbose=False)
    subprocess.run([sys.executable, "-c", SCRIPT, folder], check=True)
    return Exported(folder, predicted, dict(np.load(folder / "out.npz")))


@pytest.mark.parametrize("name", ["float32", "float16", "model.tflite", "model.onnx"])
def test_an_export_is_the_model_where_the_package_is_not(exported, name):
    if name == "model.onnx" and not HAS_ONNX:
        pytest.skip("needs onnxruntime and tf2onnx")
    predicted, returned = exported.predicted[name], exported.returned[name]
    assert returned.dtype == predicted.dtype
    np.testing.assert_allclose(returned, predicted, rtol=0, atol=1e-5)
    # The last layer is a threshold.
    assert 0.05 < np.mean(predicted == 0) < 0.95
    np.testing.assert_array_equal(returned == 0, predicted == 0)


def test_an_export_compares_and_selects(exported):
    served = tf.saved_model.load(exported.folder / "float32")
    graph = served.signatures["serving_default"].graph.as_graph_def()
    assert random_ops(graph) == []
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    operations = {node.op for node in nodes}
    assert {"LessEqual", "SelectV2"} <= operations
    unwanted = re.compile("Sort|TopK|Assign|Random|Histogram|Cumsum|While|If$")
    assert not [op for op in operations if unwanted.search(op)]
