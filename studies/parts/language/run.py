"""One run of the study `language`: the text, the model, its training, its figures."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from keras_sparseout import (
    ActivationPenalty,
    Sparseout,
    TargetSparsity,
    activation_sparsity,
)
from studies.data import lm_text, lstm_lm
from studies.matched_strength import MatchedStrength

if TYPE_CHECKING:
    from studies.language import Settings

AUSTEN = "austen"
Figures = dict[str, Any]


class Text(NamedTuple):
    """A text as numbers.

    Attributes:
        streams: By split, an array with one row for each stream.
        words: Size of the vocabulary.
    """

    streams: dict[str, np.ndarray]
    words: int


class Nats(keras.metrics.MeanMetricWrapper):
    """The mean crossentropy of a word, without penalties."""

    def __init__(self):
        super().__init__(lstm_lm.crossentropy, name="nats")


def read_text(settings: "Settings") -> Text:
    """Reads the text, and cuts it into streams of whole windows."""
    if settings.data == AUSTEN:
        words = lm_text.read_austen()
    else:
        words = lm_text.read_folder(Path(settings.data).expanduser())
    words = {
        split: each[: int(settings.share * len(each))] for split, each in words.items()
    }
    vocabulary = lm_text.make_vocabulary(words["train"], settings.min_count)
    streams = {}
    for split, each in words.items():
        numbers = lm_text.encode(each, vocabulary)
        whole = lm_text.batchify(numbers, settings.batch, settings.window, split)
        if split != "train":
            # XLA compiles a program for each length of a window.
            count = (whole.shape[1] - 1) // settings.window
            whole = whole[:, : count * settings.window + 1]
        streams[split] = whole
    return Text(streams, len(vocabulary))


def build_model(words: int, settings: "Settings") -> keras.Model:
    """From the numbers of words to the logits of the next ones."""
    noise = functools.partial(
        Sparseout,
        settings.rate * settings.scale,
        settings.q,
        # All words of a window share a mask.
        noise_shape=(None, 1, None),
        adjustable=True,
    )
    embedding = keras.layers.ReversibleEmbedding(
        words,
        settings.units,
        embeddings_initializer=keras.initializers.RandomUniform(-0.1, 0.1),
    )
    inputs = keras.Input(batch_shape=(settings.batch, None), dtype="int32")
    x = noise(name="embedded")(embedding(inputs))
    for layer in range(1, settings.layers + 1):
        lstm = keras.layers.LSTM(settings.units, return_sequences=True, stateful=True)
        x = lstm(x)
        if settings.penalty:
            x = ActivationPenalty(settings.penalty, "hoyer_square")(x)
        if settings.target:
            x = TargetSparsity(settings.target)(x)
        x = noise(name=f"lstm{layer}")(x)
    return keras.Model(inputs, embedding(x, reverse=True))


def run(settings: "Settings") -> Figures:
    """Trains one model, and returns its figures."""
    keras.utils.set_random_seed(settings.seed)
    text = read_text(settings)
    model = build_model(text.words, settings)
    model.compile(
        keras.optimizers.Adam(settings.learning_rate, global_clipnorm=1.0),
        lstm_lm.crossentropy,
        metrics=[Nats()],
        jit_compile=settings.jit_compile,
    )
    figures = train(model, text, settings)
    figures |= {
        f"{split}_nats": evaluate(model, text.streams[split], settings)
        for split in ("train", "valid", "test")
    }
    figures["test_perplexity"] = float(np.exp(figures["test_nats"]))
    figures["words"] = text.words
    figures["text"] = {split: each.size for split, each in text.streams.items()}
    return {**figures, "places": measure(model, text, settings)}


def train(model: keras.Model, text: Text, settings: "Settings") -> Figures:
    """Trains until validation does not get better; leaves the best epoch's weights."""
    streams, window = text.streams, settings.window
    strength = strength_of(text, settings, match=True)
    stopping = keras.callbacks.EarlyStopping(
        "val_nats", patience=settings.patience, mode="min", restore_best_weights=True
    )
    reset = lstm_lm.state_reset(model)
    history = model.fit(
        lm_text.windows(streams["train"], window, np.random.default_rng(settings.seed)),
        epochs=settings.epochs,
        shuffle=False,
        validation_data=lm_text.windows(streams["valid"], window),
        verbose=0,
        callbacks=[reset, *([strength] if settings.matched else []), stopping],
    ).history
    check_converged(history, text.words)
    best = int(np.argmin(history["val_nats"]))
    return {
        "epoch": best + 1,
        "epochs": len(history["val_nats"]),
        "stopped": len(history["val_nats"]) - 1 - best >= settings.patience,
        "train_curve": [round(nats, 4) for nats in history["nats"]],
        "valid_curve": [round(nats, 4) for nats in history["val_nats"]],
        "rate_curves": {
            place: [round(entry[place]["rate"], 5) for entry in strength.history]
            for place in (strength.history or [{}])[0]
        },
    }


def check_converged(history: dict[str, list[float]], words: int) -> None:
    """Raises unless training found something better than to guess."""
    losses, guessing = history["nats"] + history["val_nats"], np.log(words)
    if not (np.isfinite(losses).all() and min(history["val_nats"]) < guessing):
        raise ValueError(
            f"Training must get below the {guessing:.2f} nats of guessing. Received: "
            f"nats of validation {history['val_nats']}. Take a smaller learning_rate "
            "or rate."
        )


def strength_of(text: Text, settings: "Settings", match: bool) -> MatchedStrength:
    """The strength of the noise on the first words of all streams."""
    sample = text.streams["train"][:, : 2 * settings.window]
    return MatchedStrength(sample, settings.rate * settings.scale, match=match)


def evaluate(model: keras.Model, streams: np.ndarray, settings: "Settings") -> float:
    """Returns the crossentropy of a text in nats a word, without noise."""
    count = (streams.shape[1] - 1) // settings.window
    whole = lm_text.windows(streams[:, : count * settings.window + 1], settings.window)
    callbacks = [lstm_lm.state_reset(model)]
    figures = model.evaluate(whole, callbacks=callbacks, verbose=0, return_dict=True)
    return figures["nats"]


def measure(
    model: keras.Model, text: Text, settings: "Settings"
) -> dict[str, dict[str, float]]:
    """Returns the sparsity of each place in validation, and the strength of its noise.

    `strength` is the mean variance that the noise adds in training, and `reference`
    the one that q = 2 would add there.
    """
    lstm_lm.reset_states(model)
    strength = strength_of(text, settings, match=False)
    strength.set_model(model)
    noise = strength.update()
    table = activation_sparsity(
        model, text.streams["valid"], layers=[*noise], verbose=0
    )
    sparsity = {
        row["layer"]: {
            name: float(row[name]) for name in ("hoyer", "zeros", "dead", "rms")
        }
        for row in table.rows
    }
    return {place: {**noise[place], **sparsity[place]} for place in noise}
