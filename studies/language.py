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

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from studies.contrasts import Arm, Row
from studies.parts.language import report as language_report
from studies.parts.language import run as language_run

VERSION = 1
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
    data: str = language_run.AUSTEN
    share: float = 0.12
    min_count: int = 5
    layers: int = 2
    units: int = 64
    batch: int = 20
    window: int = 35
    learning_rate: float = 0.005
    patience: int = 5
    epochs: int = 150
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


def at(
    q: float, scale: float = 1.0, *, matched: bool = True, base: Settings | None = None
) -> Settings:
    """Returns the settings of an arm at seed 0. q = 2 is the same in all arms."""
    base = base or Settings()
    return replace(base, q=q, matched=matched and q != 2, scale=scale)


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


def base_of(done: Mapping[Settings, Figures]) -> Settings:
    """Returns the text, model and training that all these runs have in common.

    Raises:
        ValueError: if there are several.
    """
    names = ("q", "matched", "scale", "target", "penalty", "seed")
    plain = {name: getattr(Settings(), name) for name in names}
    bases = list(dict.fromkeys(replace(settings, **plain) for settings in done))
    if len(bases) > 1:
        raise ValueError(
            "--results must be a folder of runs with one text and one model. Received: "
            f"runs with {bases[0]} and runs with {bases[1]}. Give each --set a folder "
            "of its own."
        )
    return bases[0] if bases else Settings()


def best_scale(done: Mapping[Settings, Figures], q: float) -> float | None:
    """Returns the scale with the lowest mean crossentropy of validation.

    None if not all runs that decide are finished.
    """
    means = {}
    for scale, row in tuning(q, base_of(done)).items():
        nats = row.values(done, "valid_nats")
        if len(nats) < len(TUNING):
            return None
        means[scale] = np.mean(nats)
    return min(means, key=means.__getitem__)


def tuning(q: float, base: Settings) -> dict[float, Row]:
    """Returns the runs that decide on the rate of the arm `best`, by its factor."""
    return {
        scale: Row(f"q = {q:g}", at(q, scale, base=base), TUNING) for scale in SCALES
    }


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


def run(settings: Settings) -> Figures:
    return language_run.run(settings)


def arms(done: Mapping[Settings, Figures]) -> list[Arm]:
    """Returns the arms, the primary one with its fixed contrast first."""
    base = base_of(done)
    dropout = at(2, base=base)
    matched, equal = (
        Arm(
            name,
            Row("q = 2", dropout, SEEDS),
            [
                Row(f"q = {q:g}", at(q, matched=is_matched, base=base), seeds)
                for q, seeds in ((1.5, SEEDS), *((q, FEW) for q in OTHER_QS))
            ],
        )
        for name, is_matched in (("matched", True), ("equal", False))
    )
    best = [
        Row(f"q = {q:g}, rate x {scale:g}", at(q, scale, base=base), SEEDS)
        for q, scale in ((q, best_scale(done, q)) for q in (1.5, 2))
        if scale is not None
    ]
    rivals = {
        f"threshold, {100 * t:g} % zeros": replace(base, target=t) for t in TARGETS
    }
    rivals |= {f"Hoyer-square, {w:g}": replace(base, penalty=w) for w in PENALTIES}
    rows = [Row(label, settings, FEW) for label, settings in rivals.items()]
    sparsity = Arm("sparsity", Row("Dropout", dropout, FEW), rows)
    bests = [Arm("best", best[1], best[:1])] if len(best) == 2 else []
    return [matched, equal, *bests, sparsity]


def tables(done: Mapping[Settings, Figures]) -> str:
    tried = {q: tuning(q, base_of(done)) for q in (1.5, 2)}
    chosen = {q: best_scale(done, q) for q in tried}
    return language_report.tables(done, arms(done), tried, chosen)


def draw(done: Mapping[Settings, Figures], folder: Path) -> None:
    listed = arms(done)
    language_report.draw(done, listed, listed[:2], folder)
