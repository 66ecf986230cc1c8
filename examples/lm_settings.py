"""The presets of the language model, and its command line."""

import argparse
from collections.abc import Callable

import numpy as np

# Rules for arguments, in the words of the messages.
COUNT = "at least 1"
RATE = "between 0 and 1"
PART = "above 0 and at most 1"
MOMENTUM = "at least 0 and below 1"
FACTOR = "finite and at least 0"
POSITIVE = "finite and above 0"
SEED = "from 0 to 2^32 - 1"
EITHER = "adam or sgd"
RULES: dict[str, Callable] = {
    COUNT: lambda value: value >= 1,
    RATE: lambda value: 0 <= value <= 1,
    PART: lambda value: 0 < value <= 1,
    MOMENTUM: lambda value: 0 <= value < 1,
    FACTOR: lambda value: 0 <= value < np.inf,
    POSITIVE: lambda value: 0 < value < np.inf,
    SEED: lambda value: 0 <= value < 2**32,
    EITHER: lambda value: value in ("adam", "sgd"),
}
# By name: the values in --preset small and in --preset awd, the rule, and the help.
SETTINGS = {
    "q": (1.5, 2.0, FACTOR, "exponent everywhere, 2 is dropout"),
    "embedding_rate": (0.05, 0.1, RATE, "drop rate of rows of the embedding"),
    "input_rate": (0.1, 0.4, RATE, "drop rate of embedded words"),
    "between_rate": (0.1, 0.25, RATE, "drop rate between LSTM layers"),
    "output_rate": (0.1, 0.4, RATE, "drop rate of the last LSTM's output"),
    "recurrent_rate": (0.05, 0.5, RATE, "drop rate of recurrent weights"),
    "ar": (0.2, 2.0, FACTOR, "weight of the penalty on activations"),
    "tar": (0.1, 1.0, FACTOR, "weight of the penalty on their changes in time"),
    "layers": (2, 3, COUNT, "LSTM layers"),
    "embedding": (128, 400, COUNT, "units of the embedding and of the last LSTM"),
    "units": (128, 1150, COUNT, "units of the other LSTMs"),
    "batch": (20, 20, COUNT, "streams of text that are read at once"),
    "window": (35, 70, COUNT, "words of a stream in one step"),
    "epochs": (6, 500, COUNT, "passes over the text"),
    "optimizer": ("adam", "sgd", EITHER, "adam or sgd"),
    "learning_rate": (0.002, 30.0, POSITIVE, "of the optimizer"),
    "weight_decay": (0.0, 1.2e-6, FACTOR, "of the optimizer"),
    "average": (0.99, 0.999, MOMENTUM, "momentum of the average of the weights"),
    "text_share": (0.4, 1.0, PART, "share of the default text to take"),
    "min_count": (10, 2, COUNT, "rarer words become <unk>, unless the text has <unk>"),
}


def parse_arguments(description: str) -> argparse.Namespace:
    """Returns the arguments of the command line; the preset has the missing ones."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    presets = ("small", "awd")
    parser.add_argument("--preset", choices=presets, default="small")
    parser.add_argument("--data", help="folder of a text of your own")
    parser.add_argument("--out", default="out/lstm_lm", help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(%(default)s)")
    parser.add_argument(
        "--temperature", type=float, default=0.8, help="of the sample (%(default)s)"
    )
    for name, (small, awd, _, what) in SETTINGS.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(small), help=f"{what} ({small}, {awd})")
    args = parser.parse_args()
    if args.data is not None and args.text_share is not None:
        parser.error(
            "--text-share must be left out with --data, which is taken as a whole. "
            f"Received: {args.text_share}."
        )
    for name, setting in SETTINGS.items():
        if getattr(args, name) is None:
            setattr(args, name, setting[presets.index(args.preset)])
    rules = {name: rule for name, (_, _, rule, _) in SETTINGS.items()}
    for name, rule in {**rules, "seed": SEED, "temperature": POSITIVE}.items():
        if not RULES[rule](getattr(args, name)):
            option = f"--{name.replace('_', '-')}"
            parser.error(f"{option} must be {rule}. Received: {getattr(args, name)}.")
    return args
