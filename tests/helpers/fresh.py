"""Fresh processes, and what is in a file of a model."""

import pathlib
import subprocess
import sys

import numpy as np
from tensorflow.core.protobuf import saved_model_pb2

import keras_sparseout


def run_fresh(folder, script):
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
