"""Dropout, and the authors' Sparseout, in other frameworks.

Each has a process of its own: frameworks share no thread pool, and Keras has one
backend in a process. `candidates(shape, dtype)` of each file makes what takes turns.
"""

from typing import NamedTuple


class Peer(NamedTuple):
    """A framework that takes part in the run where it is installed."""

    function: str
    backend: str = "tensorflow"  # Of Keras.
    needs_release: bool = False


PEERS = {
    "PyTorch": Peer("benchmarks.peers.pytorch:candidates"),
    "Keras on JAX": Peer("benchmarks.peers.keras_on_jax:candidates", backend="jax"),
    "the authors' release": Peer(
        "benchmarks.peers.release:candidates", needs_release=True
    ),
}
