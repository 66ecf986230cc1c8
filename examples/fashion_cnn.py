"""A CNN with Sparseout on Fashion-MNIST: train it, see how sparse it became.

    python examples/fashion_cnn.py                      # Sparseout at q = 1.5
    python examples/fashion_cnn.py --q 1 --compare      # beside plain Dropout
    python examples/fashion_cnn.py --target-sparsity 0.8   # find the q for that

The default data come with the repository: 10,000 training and 10,000 test images. Each
run writes a folder with the history as CSV, a picture, the model as .keras and an
exported SavedModel, and ends with a table of the activations' sparsity.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib
import numpy as np
import tensorflow_datasets as tfds
from run_folder import Output

from keras_sparseout import Sparseout, SparsityController, SparsityTracker, metrics

matplotlib.use("Agg")
import matplotlib.pyplot as plt

EMBEDDED = "fashion_mnist_20k"
DATA = Path(__file__).parent / "data" / EMBEDDED / "1.0.0"
# Where the regularizers stand; their names are those of the activations before them.
PLACES = ("block1", "block2", "hidden")
VALIDATION = 1000
CSVS = ["history.csv", "history_dropout.csv"]
CONTROL = "control.png"


def build_model(input_shape, classes, regularizer):
    """Two convolutions and two dense layers, with `regularizer(name)` between them."""
    return keras.Sequential(
        [
            keras.Input(input_shape),
            # To mean 0 and variance 1, so that activations are of the order of 1, where
            # all q are equally strong: the noise is |x|^(q/2).
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


def train(model, data, epochs, csv, controllers=()):
    """Fits `model`, and writes into `csv` what `fit` shows; returns the history."""
    (x, y), (x_valid, y_valid), _ = data
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model.fit(
        x,
        y,
        batch_size=64,
        epochs=epochs,
        validation_data=(x_valid, y_valid),
        # These first: those after them see their figures.
        callbacks=[
            SparsityTracker(x_valid, layers=PLACES),
            *controllers,
            keras.callbacks.CSVLogger(csv),
        ],
    ).history


def measure(model, data):
    """Test accuracy, and for each place the sparsity of its activations."""
    x, y = data[2]
    _, accuracy = model.evaluate(x, y, batch_size=256, verbose=0)
    places = [model.get_layer(name).output for name in PLACES]
    activations = keras.Model(model.inputs, places).predict(x[:2000], verbose=0)
    table = {}
    for name, a in zip(PLACES, activations, strict=True):
        # Silent positions, all zero, have no Hoyer sparsity: NaN.
        table[name] = {
            "Hoyer": np.nanmean(metrics.hoyer(a)),
            "zeros": np.mean(metrics.zero_fraction(a)),
            "dead": np.mean(np.all(a == 0, axis=tuple(range(a.ndim - 1)))),
            "RMS": np.sqrt(np.mean(np.square(a))),
        }
    return accuracy, table


def draw(histories, path):
    """Accuracy, Hoyer and zeros by epoch: the first run solid, the second dashed."""
    figure, (top, *panels) = plt.subplots(
        3, 1, figsize=(9, 8), sharex=True, layout="constrained"
    )
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(PLACES)))
    for (label, history), style in zip(histories.items(), ("-", "--"), strict=False):
        epochs = range(1, len(history["loss"]) + 1)
        top.plot(
            epochs, history["accuracy"], style, color="0.6", label=f"{label}, training"
        )
        top.plot(
            epochs,
            history["val_accuracy"],
            style,
            color="black",
            label=f"{label}, validation",
        )
        for panel, metric in zip(panels, ("hoyer", "zero_fraction"), strict=True):
            for name, colour in zip(PLACES, colours, strict=True):
                panel.plot(
                    epochs,
                    history[f"val_{metric}/{name}"],
                    style,
                    color=colour,
                    label=f"{name}, {label}",
                )
    top.set_ylabel("accuracy")
    panels[0].set_ylabel("Hoyer sparsity\n(0 dense, 1 sparse)")
    panels[1].set_ylabel("fraction of zeros")
    panels[1].set_xlabel("epoch")
    panels[1].xaxis.get_major_locator().set_params(integer=True)
    for panel in (top, *panels):
        panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        panel.grid(alpha=0.3)
    figure.suptitle("Activations on validation images")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def print_table(results):
    """The table that a run ends with, one block of columns for each model."""
    print("\n" + " " * 9 + "".join(f"| {label:<31}" for label in results))
    accuracies = (
        f"| test accuracy {accuracy:<17.4f}" for accuracy, _ in results.values()
    )
    print(" " * 9 + "".join(accuracies))
    columns = ("Hoyer", "zeros", "dead", "RMS")
    print(
        f"{'layer':<9}"
        + ("| " + "".join(f"{c:<7}" for c in columns) + "   ") * len(results)
    )
    for name in PLACES:
        row = f"{name:<9}"
        for _, table in results.values():
            row += "| " + "".join(f"{table[name][c]:<7.3f}" for c in columns) + "   "
        print(row.rstrip())


def load_data(dataset):
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
            f"--dataset must name image data that can be read. Received: {dataset}, "
            f"which fails with {type(error).__name__}: {_first_line(error)}\n"
            + _remedy(dataset)
        ) from error
    if x.ndim != 4 or len(x) <= VALIDATION:
        raise SystemExit(
            f"--dataset must hold images, and more than {VALIDATION} to train on. "
            f"Received: {dataset}, with data of shape {x.shape}. Choose another one."
        )
    train = (x[:-VALIDATION], y[:-VALIDATION])
    validation = (x[-VALIDATION:], y[-VALIDATION:])
    return (train, validation, test), classes


def _first_line(error):
    return str(error).strip().split("\n")[0][:300]


def _remedy(dataset):
    if dataset == EMBEDDED:
        return f"Restore the folder {DATA} with git checkout, or from a new clone."
    return (
        "If it is one of tensorflow-datasets, prepare it once, with a network:\n"
        f"    python -c 'import tensorflow_datasets as t; t.load(\"{dataset}\")'\n"
        "or leave --dataset out for the images that come with this example."
    )


def parse_arguments():
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
        help="move q until the dense layer has this fraction of zeros",
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


def main():
    args = parse_arguments()
    data, classes = load_data(args.dataset)
    label = f"Sparseout({args.rate:g}, q={args.q:g})"
    controllers = []
    if args.target_sparsity is not None:
        label = f"Sparseout({args.rate:g}), q moved"
        controllers = [
            SparsityController(
                args.target_sparsity,
                x=data[1][0],
                layers="hidden",
                bounds=(0.5, 4),
                every=16,
            )
        ]
    regularizers = {
        label: lambda name: Sparseout(
            args.rate, q=args.q, adjustable=bool(controllers), name=name
        )
    }
    if args.compare:
        regularizers[f"Dropout({args.rate:g})"] = lambda name: keras.layers.Dropout(
            args.rate, name=name
        )
    csvs = CSVS[: len(regularizers)]
    names = [*csvs, "model.keras", "saved_model", "sparsity.png"]
    names += [CONTROL] * len(controllers)
    output = Output(args.out, names, optional=[*CSVS, CONTROL])

    histories, results = {}, {}
    for (label, regularizer), csv in zip(regularizers.items(), csvs, strict=True):
        print(f"\n{label}")
        keras.utils.set_random_seed(args.seed)
        model = build_model(data[0][0].shape[1:], classes, regularizer)
        histories[label] = train(
            model,
            data,
            args.epochs,
            output.path(csv),
            controllers if csv == "history.csv" else (),
        )
        output.done(csv)
        results[label] = measure(model, data)
        if csv == "history.csv":
            model.save(output.path("model.keras"))
            output.done("model.keras")
            model.export(output.path("saved_model"), verbose=False)
            output.done("saved_model")
    draw(histories, output.path("sparsity.png"))
    output.done("sparsity.png")
    for controller in controllers:
        controller.plot(path=output.path(CONTROL))
        output.done(CONTROL)
    print_table(results)
    print(f"\nWritten into {output.folder}: {', '.join(output.names)}")


if __name__ == "__main__":
    main()
