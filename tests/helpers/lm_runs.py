"""Small runs of the language model, shared by its tests."""

import argparse
from pathlib import Path

import keras
import numpy as np

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = {
    "embedding": 16,
    "units": 24,
    "batch": 8,
    "window": 10,
    "epochs": 2,
    "learning_rate": 0.01,
}


def settings(example, preset="small", **changes):
    """The arguments of the command line, for a tiny model."""
    column = ("small", "awd").index(preset)
    values = {name: row[column] for name, row in example.lm_settings.SETTINGS.items()}
    return argparse.Namespace(**{**values, "seed": 1, "data": None, **TINY, **changes})


def sentences(count, words=100, seed=0):
    """Lines of words. Each word is followed by one of three others."""
    rng = np.random.default_rng(seed)
    follow = np.random.default_rng(1).integers(words, size=(words, 3))
    lines = []
    for _ in range(count):
        line = [rng.integers(words)]
        for _ in range(rng.integers(4, 12)):
            line.append(follow[line[-1], rng.choice(3, p=(0.6, 0.3, 0.1))])
        lines.append(" ".join(f"w{word}" for word in line))
    return "\n".join(lines) + "\n"


def whole_windows(text):
    """Cuts a text where its streams are whole windows: XLA compiles for each length."""
    words = text.replace("\n", " \n ").split(" ")[:-1]
    batch, window = TINY["batch"], TINY["window"]
    length = (len(words) // batch - 1) // window * window + 1
    kept = " ".join([*words[: batch * length - 1], "\n"])
    return kept.replace(" \n", "\n").replace("\n ", "\n")


def write_folder(folder, train=1000, others=100):
    """Writes a text in three splits. Those to test on are whole windows."""
    for seed, split in enumerate(("train", "valid", "test")):
        text = sentences(others if seed else train, seed=seed)
        (folder / f"{split}.txt").write_text(whole_windows(text) if seed else text)
    return folder


def states(model):
    """The states of the LSTMs, a list of arrays."""
    lstms = [getattr(layer, "layer", layer) for layer in model.layers]
    return [
        np.asarray(state.value)
        for lstm in lstms
        if isinstance(lstm, keras.layers.LSTM)
        for state in lstm.states
    ]
