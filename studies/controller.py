"""How near does SparsityController come to what it is asked for?

It trains two models on the example's images: one hidden layer of 256 ReLU units, and
the example's CNN, of which the last hidden layer is controlled. Each target is asked
for with q and with an L1 penalty. The figures are the sparsity on test images, as the
mean over the last three epochs, the accuracy, and the setting at the end.

For the CNN it first holds the settings at either end, to see what all seeds can reach.
The targets are spread over that range.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_sparseout import ActivationPenalty, Sparseout, SparsityController, metrics
from keras_sparseout.plots import drawing
from studies.data import fashion_cnn
from studies.tables import markdown

VERSION = 1

SEEDS = (0, 1, 2)
METRICS = ("hoyer", "zero_fraction")
ACTUATORS = ("q", "weight")
TARGETS = {"hoyer": (0.55, 0.65, 0.75), "zero_fraction": (0.65, 0.75, 0.85)}
# Where the targets of the CNN are, between the ends of what it can reach.
SHARES = (0.25, 0.5, 0.75)
BATCH_SIZES = {"dense": 32, "cnn": 64}
# Batches between two readings. Both models get the same number of readings an epoch.
EVERY = {"dense": 32, "cnn": 16}
# Bounds that differ from the defaults of the controller.
BOUNDS = {"dense": {"q": (0.5, 8)}, "cnn": {"q": (0.5, 4)}}
# Settings to hold, to see what the CNN can reach. A weight of 0.1 would silence it.
ENDS = {"q": (0.5, 4.0), "weight": (0.0, 0.03)}
HEADER = ("metric", "target", "seed", "last 3 epochs", "off by", "accuracy", "at")


@dataclass(frozen=True)
class Settings:
    """All that decides the figures of a run.

    Attributes:
        model: "dense" or "cnn".
        actuator: "q" or "weight".
        metric: What is asked for, "" where the setting is held.
        target: How much of it; where the setting is held, its value.
        images: How many are trained on.
        epochs: How often.
        seed: Of weights, order and noise.
        threads: That TensorFlow computes with.
    """

    model: str
    actuator: str
    metric: str
    target: float
    images: int = 9000
    epochs: int = 8
    seed: int = 0
    threads: int = 1


def runs(done: Mapping[Settings, dict[str, Any]]) -> list[Settings]:
    """The runs with given targets, the ends, then targets between the ends."""
    asked = [
        ("dense", actuator, metric, target)
        for actuator in ACTUATORS
        for metric in METRICS
        for target in TARGETS[metric]
    ]
    ends = [
        ("cnn", actuator, "", end) for actuator in ACTUATORS for end in ENDS[actuator]
    ]
    first = _with_seeds(asked + ends)
    between = [
        ("cnn", actuator, metric, round(low + share * (high - low), 2))
        for actuator in ACTUATORS
        for metric in METRICS
        if (reach := reachable(done, actuator, metric)) is not None
        for low, high in [reach]
        for share in SHARES
    ]
    return first + _with_seeds(between)


def _with_seeds(parts):
    return [Settings(*part, seed=seed) for part in parts for seed in SEEDS]


def tiny() -> list[Settings]:
    """A run of a few steps."""
    return [Settings("cnn", "q", "hoyer", 0.6, images=1024, epochs=1)]


def kind(settings: Settings) -> str:
    """Runs of a model take about the same time."""
    return settings.model


def reachable(
    done: Mapping[Settings, dict[str, Any]], actuator: str, metric: str
) -> tuple[float, float] | None:
    """Returns the least and the largest figure that all seeds of the CNN reach.

    It is None as long as a run with a held setting is missing.
    """
    found: dict[float, list[float]] = {}
    for run, figures in done.items():
        if (run.model, run.actuator, run.metric) == ("cnn", actuator, ""):
            found.setdefault(run.target, []).append(figures[metric])
    if sorted(map(len, found.values())) != [len(SEEDS)] * 2:
        return None
    low, high = sorted(found.values(), key=np.mean)
    return max(low), min(high)


def hidden(actuator: str, setting: float, rate: float) -> keras.Model:
    """The layers to control, as a model, so that both kinds have the same names.

    The penalty works against q = 4, where activations are dense.
    """
    if actuator == "q":
        layers = [Sparseout(rate, q=setting, adjustable=True, name="regularizer")]
    else:
        layers = [
            ActivationPenalty(setting, adjustable=True, name="regularizer"),
            Sparseout(rate, q=4.0),
        ]
    return keras.Sequential(layers, name="hidden")


def build(name: str, actuator: str, setting: float) -> keras.Model:
    if name == "cnn":
        return fashion_cnn.build_model(
            (28, 28, 1),
            10,
            lambda place: (
                hidden(actuator, setting, 0.3)
                if place == "hidden"
                else Sparseout(0.3, q=2.0, name=place)
            ),
        )
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(256, activation="relu"),
            hidden(actuator, setting, 0.5),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


class OnTestImages(keras.callbacks.Callback):
    """Measures the hidden layer on test images at the end of each epoch."""

    def __init__(self, x):
        super().__init__()
        self.x = x
        self.figures = {name: [] for name in METRICS}

    def on_epoch_end(self, epoch, logs=None):
        part = keras.Model(self.model.inputs, self.model.get_layer("hidden").input)
        a = part.predict(self.x, batch_size=1000, verbose=0)
        for name, figures in self.figures.items():
            figures.append(float(np.nanmean(getattr(metrics, name)(a))))

    def last(self, name: str) -> float:
        """The mean of a metric over the last three epochs."""
        return float(np.mean(self.figures[name][-3:]))


def run(settings: Settings) -> dict[str, Any]:
    """Trains a model; returns its figures on test images."""
    data, _ = fashion_cnn.load_data(fashion_cnn.EMBEDDED)
    actuator = settings.actuator
    controllers = [_controller(settings, data[1][0])] if settings.metric else []
    start = 2.0 if actuator == "q" else 0.0
    test = OnTestImages(data[2][0])
    model = _train(
        settings,
        start if settings.metric else settings.target,
        [part[: settings.images] for part in data[0]],
        [*controllers, test],
    )
    _, accuracy = model.evaluate(*data[2], batch_size=1000, verbose=0)
    figures = {name: test.last(name) for name in METRICS} | {"accuracy": accuracy}
    for controller in controllers:
        setting = controller.history[f"{actuator}/hidden/regularizer"][-1]
        figures["setting"] = float(setting)
    return figures


def _controller(settings: Settings, x: np.ndarray) -> SparsityController:
    return SparsityController(
        settings.target,
        settings.metric,
        x=x,
        actuator=settings.actuator,
        bounds=BOUNDS[settings.model].get(settings.actuator),
        layers="hidden/regularizer",
        every=EVERY[settings.model],
        verbose=0,
    )


def _train(
    settings: Settings,
    setting: float,
    images: Iterable[np.ndarray],
    callbacks: list[keras.callbacks.Callback],
) -> keras.Model:
    keras.utils.set_random_seed(settings.seed)
    model = build(settings.model, settings.actuator, setting)
    model.compile(
        keras.optimizers.Adam(1e-3),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(
        *images,
        batch_size=BATCH_SIZES[settings.model],
        epochs=settings.epochs,
        verbose=0,
        callbacks=callbacks,
    )
    return model


def tables(done: Mapping[Settings, dict[str, Any]]) -> str:
    """How far off each run is, and the farthest, as Markdown."""
    parts = []
    for model, actuator in itertools.product(BATCH_SIZES, ACTUATORS):
        own = {
            run: figures
            for run, figures in done.items()
            if (run.model, run.actuator) == (model, actuator)
        }
        if own:
            parts.append(_table(own, f"### {model}, by {actuator}"))
    return "\n".join(parts)


def _table(own: Mapping[Settings, dict[str, Any]], title: str) -> str:
    lines = [f"{title}\n", *_reach_lines(own)]
    controlled = {run: figures for run, figures in own.items() if run.metric}
    if controlled:
        gaps = [abs(each[run.metric] - run.target) for run, each in controlled.items()]
        lines.append(f"Farthest from its target: {max(gaps):.4f}.\n")
        lines.append(markdown(HEADER, map(_row, controlled, controlled.values())))
    return "\n".join(lines)


def _row(run: Settings, figures: dict[str, Any]) -> list[object]:
    return [
        run.metric,
        f"{run.target:g}",
        run.seed,
        f"{figures[run.metric]:.4f}",
        f"{figures[run.metric] - run.target:+.4f}",
        f"{figures['accuracy']:.3f}",
        f"{figures['setting']:.3g}",
    ]


def _reach_lines(own: Mapping[Settings, dict[str, Any]]) -> Iterable[str]:
    for actuator, metric in itertools.product(ACTUATORS, METRICS):
        reach = reachable(own, actuator, metric)
        if reach is not None:
            ends = " and ".join(f"{end:g}" for end in ENDS[actuator])
            yield (
                f"With {actuator} held at {ends} all seeds reach a {metric} of "
                f"{reach[0]:.3f} to {reach[1]:.3f}.\n"
            )


def draw(done: Mapping[Settings, dict[str, Any]], folder: Path) -> None:
    """Draws how far off each run is against its target."""
    figure = drawing.new_figure(4)
    panels = figure.subplots(1, len(METRICS), sharey=True)
    parts = list(itertools.product(BATCH_SIZES, ACTUATORS))
    for panel, metric in zip(panels, METRICS, strict=True):
        for part, marker in zip(parts, drawing.MARKERS, strict=False):
            points = [
                (run.target, figures[metric] - run.target)
                for run, figures in done.items()
                if (run.model, run.actuator, run.metric) == (*part, metric)
            ]
            panel.plot(
                *np.array(points).reshape(-1, 2).T, marker, label=", ".join(part)
            )
        panel.axhline(0, color="0.5", linewidth=1)
        panel.set_xlabel(f"target, {metric.replace('_', ' ')}")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("reached minus target")
    panels[-1].legend(frameon=False)
    figure.savefig(folder / "controller.png", dpi=130)
