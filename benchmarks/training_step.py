"""What regularizers add to the training step of the example's CNN.

    python benchmarks/training_step.py

prints the CPU time of a training step with keras.layers.Dropout and with Sparseout, and
what each adds to the same model without a regularizer, as a multiple of what Dropout
adds. Then it does the same with the whole step compiled, `jit_compile=True`.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from interleave import Spent, fastest, measure, print_machine

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from fashion_cnn import build_model

from keras_sparseout import Sparseout

KINDS = {
    "none": lambda name: keras.layers.Identity(name=name),
    "keras Dropout": lambda name: keras.layers.Dropout(0.3, name=name),
    "Sparseout q=1.5": lambda name: Sparseout(0.3, q=1.5, name=name),
    "Sparseout q=1": lambda name: Sparseout(0.3, q=1, name=name),
    "Sparseout q=2": lambda name: Sparseout(0.3, q=2, name=name),
    "Sparseout q=1.3": lambda name: Sparseout(0.3, q=1.3, name=name),
}


def training_steps(
    kind: str, batch_size: int, steps: int, jit_compile: bool
) -> Callable[[], object]:
    """A function that trains the example's CNN for a number of steps."""
    keras.utils.set_random_seed(1)
    model = build_model((28, 28, 1), 10, KINDS[kind])
    model.compile(
        "adam",
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=jit_compile,
    )
    x = np.random.default_rng(0).integers(0, 256, (batch_size * steps, 28, 28, 1))
    y = np.random.default_rng(1).integers(0, 10, batch_size * steps)
    return lambda: model.fit(x.astype("uint8"), y, batch_size=batch_size, verbose=0)


def compare(
    kinds: Iterable[str], args: argparse.Namespace, jit_compile: bool
) -> dict[str, list[Spent]]:
    return measure(
        {
            kind: training_steps(kind, args.batch_size, args.steps, jit_compile)
            for kind in kinds
        },
        rounds=min(args.rounds, 5) if jit_compile else args.rounds,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=25)
    args = parser.parse_args()

    print_machine()
    print(f"\n{args.steps} training steps of batch {args.batch_size}")
    rounds_of = compare(KINDS, args, jit_compile=False)
    # The added time is small beside the step: the median of differences within rounds.
    added = {
        kind: statistics.median(
            with_it[0] - without[0]
            for with_it, without in zip(rounds, rounds_of["none"], strict=True)
        )
        for kind, rounds in rounds_of.items()
    }
    for kind, (cpu, wall) in fastest(rounds_of).items():
        print(
            f"{kind:<16} {cpu * 1e3:8.1f} ms CPU {wall * 1e3:8.1f} ms wall   "
            f"added {added[kind] * 1e3:7.1f} ms CPU, "
            f"{added[kind] / added['keras Dropout']:5.2f} of what Dropout adds"
        )

    print("\nthe same with model.compile(jit_compile=True)")
    kinds = ("none", "keras Dropout", "Sparseout q=1.5", "Sparseout q=1.3")
    results = fastest(compare(kinds, args, jit_compile=True))
    for kind, (cpu, wall) in results.items():
        print(
            f"{kind:<16} {cpu * 1e3:8.1f} ms CPU {wall * 1e3:8.1f} ms wall  "
            f"{cpu / results['keras Dropout'][0]:6.3f} of the step with Dropout"
        )


if __name__ == "__main__":
    main()
