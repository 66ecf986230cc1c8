"""A CNN with Sparseout on Fashion-MNIST: train it, see how sparse it became.

    python examples/fashion_cnn.py                      # Sparseout at q = 1.5
    python examples/fashion_cnn.py --q 1 --compare      # beside plain Dropout
    python examples/fashion_cnn.py --target-sparsity 0.8   # find the q for that
    python examples/fashion_cnn.py --target-sparsity 0.7 --actuator penalty  # plain CNN

The default data come with the repository: 10,000 training and 10,000 test images. Each
run writes a folder with the history as CSV, a picture, the model as .keras and an
exported SavedModel, and ends with a table of the activations' sparsity.
"""

import argparse
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow_datasets as tfds
from run_folder import Output

from keras_sparseout import (
    Sparseout,
    SparsityController,
    SparsityTracker,
    activation_sparsity,
    plots,
)

EMBEDDED = "fashion_mnist_20k"
DATA = Path(__file__).parent / "data" / EMBEDDED / "1.0.0"
# Names of the regularizers, and of the activations that they act on.
PLACES = ("block1", "block2", "hidden")
VALIDATION = 1000
CSVS = ["history.csv", "history_dropout.csv"]
CONTROL = "control.png"

# Images and labels for training, validation and test.
Data = tuple[tuple[np.ndarray, np.ndarray], ...]
# Takes the name of a layer, and makes it.
Regularizer = Callable[[str], keras.layers.Layer]


class Run(NamedTuple):
    """One of the models to train."""

    title: str
    label: str  # In the picture.
    csv: str
    regularizer: Regularizer


def build_model(
    input_shape: tuple[int, ...], classes: int, regularizer: Regularizer
) -> keras.Model:
    """Two convolutions and two dense layers, with `regularizer(name)` between them."""
    return keras.Sequential(
        [
            keras.Input(input_shape),
            # To mean 0 and variance 1, which keeps activations near 1. Noise scales as
            # |x|^(q/2), so near 1 it is about as strong for any q.
            keras.layers.Rescaling(1 / 90, offset=-0.8),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            regularizer("block1"),
            keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            regularizer("block2"),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            regularizer("hidden"),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )


def train(
    model: keras.Model,
    data: Data,
    epochs: int,
    csv: Path,
    controllers: Iterable[SparsityController] = (),
) -> dict[str, list[float]]:
    """Fits `model`, writes its history into `csv`, and returns it."""
    (x, y), (x_valid, y_valid), _ = data
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model.fit(
        x,
        y,
        batch_size=64,
        epochs=epochs,
        validation_data=(x_valid, y_valid),
        # CSVLogger comes last, to see the figures of those before it.
        callbacks=[
            SparsityTracker(x_valid, layers=PLACES),
            *controllers,
            keras.callbacks.CSVLogger(csv),
        ],
    ).history


def measure(model: keras.Model, data: Data):
    """Returns the test accuracy, and the table of the activations at each place."""
    x, y = data[2]
    _, accuracy = model.evaluate(x, y, batch_size=256, verbose=0)
    return accuracy, activation_sparsity(model, x[:2000], layers=PLACES)


def draw(histories: Mapping[str, Mapping[str, list[float]]], path: Path) -> None:
    """Draws accuracy, Hoyer sparsity and zeros of all runs by epoch."""
    curves = {}
    for label, history in histories.items():
        for key in ("accuracy", "val_accuracy"):
            curves[f"{key}/{label}"] = history[key]
        for metric in ("val_hoyer", "val_zero_fraction"):
            for place in PLACES:
                curves[f"{metric}/{place}, {label}"] = history[f"{metric}/{place}"]
    panels = ("accuracy", "hoyer", "zero_fraction")
    plots.sparsity(curves, panels, accuracy=None, path=path)


def load_data(dataset: str) -> tuple[Data, int]:
    """Returns (x, y) for training, validation and test, and the number of classes."""
    options = {"split": ["train", "test"], "batch_size": -1, "as_supervised": True}
    try:
        if dataset == EMBEDDED:
            builder = tfds.builder_from_directory(DATA)
            splits, info = builder.as_dataset(**options), builder.info
        else:
            # With download, it would be tried for minutes where there is no network.
            splits, info = tfds.load(dataset, download=False, with_info=True, **options)
        (x, y), test = (tuple(np.asarray(part) for part in split) for split in splits)
        classes = info.features["label"].num_classes
    except Exception as error:  # TFDS raises many kinds, and the remedy is the same.
        raise SystemExit(
            f"The data set must be images that can be read. Received: {dataset}, which "
            f"fails with {type(error).__name__}: {_first_line(error)}\n"
            + _remedy(dataset)
        ) from error
    if x.ndim != 4 or len(x) <= VALIDATION:
        raise SystemExit(
            f"The data set must be images, and more than {VALIDATION} to train on. "
            f"Received: {dataset}, with data of shape {x.shape}. Choose another one."
        )
    train = (x[:-VALIDATION], y[:-VALIDATION])
    validation = (x[-VALIDATION:], y[-VALIDATION:])
    return (train, validation, test), classes


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]


def _remedy(dataset: str) -> str:
    if dataset == EMBEDDED:
        return f"Restore the folder {DATA} with git checkout, or from a new clone."
    return (
        "If it is one of tensorflow-datasets, prepare it once, with a network:\n"
        f"    python -c 'import tensorflow_datasets as t; t.load(\"{dataset}\")'\n"
        f"or take {EMBEDDED}, the images that come with the examples."
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--q", type=float, default=1.5, help="exponent, 2 is Dropout (%(default)s)"
    )
    parser.add_argument(
        "--rate", type=float, default=0.3, help="drop rate (%(default)s)"
    )
    parser.add_argument(
        "--target-sparsity",
        type=float,
        metavar="S",
        help="have this fraction of zeros, see --actuator",
    )
    parser.add_argument(
        "--actuator",
        choices=("q", "penalty"),
        default="q",
        help="for --target-sparsity: move q of the dense layer, or push all layers of "
        "the CNN with plain Dropout by penalties (%(default)s)",
    )
    parser.add_argument("--epochs", type=int, default=8, help="(%(default)s)")
    parser.add_argument(
        "--dataset", default=EMBEDDED, help="the embedded one, or a name of TFDS"
    )
    parser.add_argument(
        "--out", default="out/fashion_cnn", help="folder to write (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="(%(default)s)")
    parser.add_argument(
        "--compare", action="store_true", help="train with plain Dropout too"
    )
    arguments = parser.parse_args()
    if arguments.epochs < 1:
        parser.error(f"--epochs must be at least 1. Received: {arguments.epochs}.")
    if not 0 <= arguments.seed < 2**32:
        parser.error(f"--seed must be from 0 to 2^32 - 1. Received: {arguments.seed}.")
    if Path(arguments.out).exists() and not Path(arguments.out).is_dir():
        parser.error(f"--out must be a folder. Received: {arguments.out}, a file.")
    try:
        Sparseout(arguments.rate, q=arguments.q)
        if arguments.target_sparsity is not None:
            SparsityController(arguments.target_sparsity)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def make_runs(args: argparse.Namespace) -> list[Run]:
    """The model with Sparseout, and with --compare the same with Dropout."""
    moved = args.target_sparsity is not None
    pushed = moved and args.actuator == "penalty"
    title = f"Sparseout({args.rate:g}, q={args.q:g})"
    label = f"q={args.q:g}"
    if moved:
        title, label = f"Sparseout({args.rate:g}), q moved", "q moved"

    def sparseout(name):
        return Sparseout(args.rate, q=args.q, adjustable=moved, name=name)

    def dropout(name):
        return keras.layers.Dropout(args.rate, name=name)

    runs = [Run(title, label, CSVS[0], sparseout)]
    if pushed:
        title = f"Dropout({args.rate:g}), pushed to {args.target_sparsity:g} zeros"
        runs = [Run(title, "pushed", CSVS[0], dropout)]
    if args.compare:
        runs.append(Run(f"Dropout({args.rate:g})", "Dropout", CSVS[1], dropout))
    return runs


def make_controllers(args: argparse.Namespace, data: Data) -> list[SparsityController]:
    """The callback that brings layers to --target-sparsity, if it is given."""
    if args.target_sparsity is None:
        return []
    if args.actuator == "penalty":
        return [SparsityController(args.target_sparsity, x=data[1][0])]
    return [
        SparsityController(
            args.target_sparsity,
            x=data[1][0],
            layers="hidden",
            actuator="q",
            bounds=(0.5, 4),
            every=16,
        )
    ]


def main():
    args = parse_arguments()
    data, classes = load_data(args.dataset)
    runs, controllers = make_runs(args), make_controllers(args, data)
    names = [run.csv for run in runs] + ["model.keras", "saved_model", "sparsity.png"]
    names += [CONTROL] * len(controllers)
    output = Output(args.out, names, optional=[*CSVS, CONTROL])

    histories, results = {}, {}
    for run in runs:
        print(f"\n{run.title}")
        keras.utils.set_random_seed(args.seed)
        model = build_model(data[0][0].shape[1:], classes, run.regularizer)
        first = run is runs[0]
        histories[run.label] = train(
            model, data, args.epochs, output.path(run.csv), controllers if first else ()
        )
        output.done(run.csv)
        results[run.title] = measure(model, data)
        if first:
            model.save(output.path("model.keras"))
            output.done("model.keras")
            model.export(output.path("saved_model"), verbose=False)
            output.done("saved_model")
    draw(histories, output.path("sparsity.png"))
    output.done("sparsity.png")
    for controller in controllers:
        controller.plot(path=output.path(CONTROL))
        output.done(CONTROL)
    for title, (accuracy, table) in results.items():
        print(f"\n{title}: test accuracy {accuracy:.4f}\n{table}")
    print(f"\nWritten into {output.folder}: {', '.join(output.names)}")


if __name__ == "__main__":
    main()
