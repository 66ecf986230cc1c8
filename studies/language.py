"""Is q below 2 good for a language model, and is sparsity itself?

A run trains a word-level LSTM language model (embedding, two LSTMs, tied softmax) until
its crossentropy on validation text has not fallen for some epochs. It takes the weights
of the best epoch and then reads the test text once. Sparseout stands on the embedded
words, between the LSTMs and on the last output. All words of a window share a mask, as
with the dropout of AWD-LSTM (Merity, Keskar & Socher, 2017). There is no noise on
weights, which AWD-LSTM has too.

Four arms:

- matched (primary): every q adds as much variance as q = 2 does, see
  `studies/matched_strength.py`;
- equal: every q has the same rates;
- best: q = 1.5 and q = 2 each at the best of three rates, chosen on validation text
  with other seeds. The rate of q = 1.5 is the one that adds as much variance as q = 2
  at that rate, so both are tried at the same three strengths;
- sparsity: Dropout, q = 2, with thresholds or a Hoyer-square penalty on the outputs of
  the LSTMs.

The contrast that was fixed beforehand: q = 1.5 against q = 2 in the arm matched, in
nats a word of the test text, over 10 pairs of runs with the same seeds.

The text is a part of Jane Austen's novels, or `--set data=FOLDER` with `--set share=1`:
the Penn Treebank, WikiText-2, or a text of your own.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_sparseout import (
    ActivationPenalty,
    Sparseout,
    TargetSparsity,
    activation_sparsity,
)
from studies import language_report
from studies.data import lm_text, lstm_lm
from studies.language_report import Arm, Found, Row
from studies.matched_strength import MatchedStrength

VERSION = 1
AUSTEN = "austen"
Figures = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What decides the figures of a run.

    Attributes:
        q: Exponent of Sparseout.
        matched: Whether the noise is as strong as that of q = 2.
        scale: Factor of `rate`.
        target: Share of the outputs of each LSTM that a threshold sets to 0; 0 for no
            threshold.
        penalty: Weight of the Hoyer-square penalty on the outputs of each LSTM.
        seed: Of the first weights, the masks, and the offsets of the windows.
        rate: Drop rate of q = 2 in all places.
        data: "austen", or a folder as the example takes it.
        share: How much of each split to take, from its beginning.
        min_count: Rarer words become <unk>, unless the text has <unk>.
        layers: LSTMs.
        units: Of the embedding and of each LSTM.
        batch: Streams of text that are read at once.
        window: Words of a stream in one step.
        learning_rate: Of Adam.
        patience: Epochs without a lower crossentropy of validation after which
            training ends.
        epochs: At most.
        jit_compile: Whether XLA compiles the training step.
        threads: Threads of TensorFlow.
    """

    q: float = 2.0
    matched: bool = False
    scale: float = 1.0
    target: float = 0.0
    penalty: float = 0.0
    seed: int = 0
    rate: float = 0.25
    data: str = AUSTEN
    share: float = 0.15
    min_count: int = 5
    layers: int = 2
    units: int = 64
    batch: int = 20
    window: int = 35
    learning_rate: float = 0.005
    patience: int = 3
    epochs: int = 100
    jit_compile: bool = True
    threads: int = 1


SEEDS = range(10)
FEW = range(3)
# Of the choice of rates alone.
TUNING = range(10, 12)
OTHER_QS = (1.0, 3.0)
SCALES = (0.5, 1.0, 2.0)
TARGETS = (0.25, 0.5, 0.75)
PENALTIES = (0.003, 0.01)


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


def at(q: float, scale: float = 1.0, *, matched: bool = True) -> Settings:
    """Returns the settings of an arm at seed 0. q = 2 is the same in all arms."""
    return Settings(q=q, matched=matched and q != 2, scale=scale)


def runs(done: Mapping[Settings, Figures]) -> list[Settings]:
    listed = [replace(at(q), seed=seed) for seed in SEEDS for q in (1.5, 2)]
    listed += [replace(at(1.5, matched=False), seed=seed) for seed in SEEDS]
    listed += [
        replace(at(q, matched=matched), seed=seed)
        for matched in (True, False)
        for q in OTHER_QS
        for seed in FEW
    ]
    rivals = [Settings(target=target) for target in TARGETS]
    rivals += [Settings(penalty=penalty) for penalty in PENALTIES]
    listed += [replace(rival, seed=seed) for rival in rivals for seed in FEW]
    listed += [
        replace(at(q, scale), seed=seed)
        for scale in SCALES
        for q in (1.5, 2)
        for seed in TUNING
    ]
    chosen = [(q, best_scale(done, q)) for q in (1.5, 2)]
    if all(scale is not None for _, scale in chosen):
        # What is there already, at scale 1, is not repeated.
        listed += [replace(at(*each), seed=seed) for seed in SEEDS for each in chosen]
    return listed


def best_scale(done: Mapping[Settings, Figures], q: float) -> float | None:
    """Returns the scale with the lowest mean crossentropy of validation.

    None if not all runs that decide are finished.
    """
    found = Found(done)
    means = {}
    for scale in SCALES:
        wanted = at(q, scale)
        nats = found.values(wanted, TUNING, "valid_nats")
        if len(nats) < len(TUNING):
            return None
        means[scale] = np.mean([*nats.values()])
    return min(means, key=means.__getitem__)


def tiny() -> list[Settings]:
    small = Settings(units=8, share=0.02, batch=10, window=20, epochs=2)
    return [
        small,
        replace(small, q=1.5, matched=True),
        replace(small, target=0.5, penalty=0.01),
    ]


def kind(settings: Settings) -> str:
    if settings.target:
        return "threshold"
    if settings.penalty:
        return "penalty"
    return f"q = {settings.q:g}, {'matched' if settings.matched else 'equal'}"


def read_text(settings: Settings) -> Text:
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


def build_model(words: int, settings: Settings) -> keras.Model:
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


def run(settings: Settings) -> Figures:
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


def train(model: keras.Model, text: Text, settings: Settings) -> Figures:
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
    if not np.isfinite(history["nats"] + history["val_nats"]).all():
        raise ValueError(
            "Training must not diverge. Received: crossentropies of "
            f"{history['nats']}. Take a smaller learning_rate or rate."
        )
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


def strength_of(text: Text, settings: Settings, match: bool) -> MatchedStrength:
    """The strength of the noise on the first words of all streams."""
    sample = text.streams["train"][:, : 2 * settings.window]
    return MatchedStrength(sample, settings.rate * settings.scale, match=match)


def evaluate(model: keras.Model, streams: np.ndarray, settings: Settings) -> float:
    """Returns the crossentropy of a text in nats a word, without noise."""
    count = (streams.shape[1] - 1) // settings.window
    whole = lm_text.windows(streams[:, : count * settings.window + 1], settings.window)
    callbacks = [lstm_lm.state_reset(model)]
    figures = model.evaluate(whole, callbacks=callbacks, verbose=0, return_dict=True)
    return figures["nats"]


def measure(
    model: keras.Model, text: Text, settings: Settings
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


def arms(scales: Mapping[float, float | None]) -> list[Arm]:
    """Returns the arms, the primary one with its fixed contrast first.

    Args:
        scales: The factor of the rate that each q of the arm `best` has, None if it is
            not known yet.
    """
    dropout = at(2)
    matched, equal = (
        Arm(
            name,
            Row("q = 2", dropout, SEEDS),
            [Row("q = 1.5", at(1.5, matched=is_matched), SEEDS)]
            + [Row(f"q = {q:g}", at(q, matched=is_matched), FEW) for q in OTHER_QS],
        )
        for name, is_matched in (("matched", True), ("equal", False))
    )
    best = [
        Row(f"q = {q:g}, rate x {scale:g}", at(q, scale), SEEDS)
        for q, scale in scales.items()
        if scale is not None
    ]
    sparsity = Arm(
        "sparsity",
        Row("Dropout", dropout, FEW),
        [Row(f"threshold, {t:.0%} zeros", Settings(target=t), FEW) for t in TARGETS]
        + [Row(f"Hoyer-square, {w:g}", Settings(penalty=w), FEW) for w in PENALTIES],
    )
    bests = [Arm("best", best[1], best[:1])] if len(best) == 2 else []
    return [matched, equal, *bests, sparsity]


def tables(done: Mapping[Settings, Figures]) -> str:
    scales = {q: best_scale(done, q) for q in (1.5, 2)}
    tried = {
        q: {scale: Row(f"{q:g}", at(q, scale), TUNING) for scale in SCALES}
        for q in scales
    }
    return language_report.tables(done, arms(scales), tried, scales)


def draw(done: Mapping[Settings, Figures], folder: Path) -> None:
    listed = arms({q: best_scale(done, q) for q in (1.5, 2)})
    language_report.draw(done, listed, listed[:2], folder)
