"""Saves models in every format, and loads them in a fresh process."""

import pathlib
import subprocess
import sys

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import keras_sparseout

# Loads the models that `save` saved in folders below one: first exports, then files.
SCRIPT = """
import pathlib, sys
import keras, numpy as np, tensorflow as tf

folder = pathlib.Path(sys.argv[1])
x = np.load(folder / "x.npy")
kinds = [path.name for path in folder.iterdir() if path.is_dir()]
out = {}
for kind in kinds:
    here = folder / kind
    exported, raw = (tf.saved_model.load(here / name) for name in ("exported", "raw"))
    out[f"{kind}/exported"] = exported.serve(x)
    raw = raw.signatures["serving_default"](tf.constant(x))
    out[f"{kind}/raw"], = raw.values()
    layer = keras.layers.TFSMLayer(here / "exported", call_endpoint="serve")
    out[f"{kind}/layer"] = layer(x)
assert "keras_sparseout" not in sys.modules
import keras_sparseout

for kind in kinds:
    here = folder / kind
    whole = keras.saving.load_model(here / "model.keras")
    rebuilt = keras.models.model_from_json((here / "model.json").read_text())
    rebuilt.load_weights(here / "model.weights.h5")
    for name, model in {".keras": whole, ".weights.h5": rebuilt}.items():
        out[f"{kind}{name}/predicted"] = model(x)
        steps = [model(x, training=True) for _ in range(2)]
        out[f"{kind}{name}/continued"] = np.stack(steps)
np.savez(folder / "fresh.npz", **out)
"""


def save(model, folder):
    folder.mkdir()
    (folder / "model.json").write_text(model.to_json())
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    model.export(folder / "exported", verbose=False)
    tf.saved_model.save(model, folder / "raw")


def run_fresh(folder, script=SCRIPT):
    """Runs `script` in a fresh process; returns the arrays that it saves, by name."""
    root = pathlib.Path(keras_sparseout.__file__).parent.parent
    subprocess.run([sys.executable, "-c", script, folder], cwd=root, check=True)
    return np.load(folder / "fresh.npz")


def random_ops(graph_def):
    """Returns the ops of a graph that draw, in which there must be a product."""
    nodes = [*graph_def.node]
    for function in graph_def.library.function:
        nodes.extend(function.node_def)
    ops = {node.op for node in nodes}
    assert "MatMul" in ops
    # Our masks come from a hash.
    return [op for op in ops if "Random" in op or op == "BitwiseXor"]


def random_ops_of_file(folder):
    """Returns the random ops of a SavedModel."""
    contents = saved_model_pb2.SavedModel()
    contents.ParseFromString((folder / "saved_model.pb").read_bytes())
    (meta_graph,) = contents.meta_graphs
    return random_ops(meta_graph.graph_def)
