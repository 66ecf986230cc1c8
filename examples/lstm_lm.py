"""A word-level LSTM language model with Sparseout in all places of AWD-LSTM.

    python examples/lstm_lm.py                     # Jane Austen, in minutes
    python examples/lstm_lm.py --q 2               # with dropout, as AWD-LSTM has it
    python examples/lstm_lm.py --data ptb --preset awd     # text of your own

The model is that of Merity, Keskar & Socher (2017), https://arxiv.org/abs/1708.02182:
rows of the embedding and recurrent weights are dropped by Bridgeout, the embedded
words, what goes between the layers and the last output by Sparseout with one mask a
sequence, and one q for all. Output and input embeddings are tied, activations and their
changes in time are penalized, the weights are averaged. --preset awd has its sizes and
rates for the Penn Treebank. What differs: the average is Keras' exponential moving
one, from the first step on, and windows are not of varying lengths, each of which would
be traced (with XLA, compiled) anew. They all have one length instead, and are cut at
another offset in each epoch.

The default text comes with the repository. --data is a folder of train.txt, valid.txt
and test.txt, or of the Penn Treebank's ptb.train.txt ... or WikiText-2's
wiki.train.tokens .... Each run writes a folder with the history as CSV, a picture, a
sample of text, the vocabulary, the model as .keras and an exported SavedModel.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import lm_text
import matplotlib
import numpy as np
from keras import ops
from run_folder import Output

from keras_sparseout import ActivationPenalty, Sparseout, SparsityTracker
from keras_sparseout.weights import Bridgeout

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# Each with its value in --preset small and in --preset awd.
SETTINGS = {
    "q": (1.5, 2.0, "exponent everywhere, 2 is dropout"),
    "embedding_rate": (0.05, 0.1, "drop rate of rows of the embedding"),
    "input_rate": (0.1, 0.4, "drop rate of embedded words"),
    "between_rate": (0.1, 0.25, "drop rate between LSTM layers"),
    "output_rate": (0.1, 0.4, "drop rate of the last LSTM's output"),
    "recurrent_rate": (0.05, 0.5, "drop rate of recurrent weights"),
    "ar": (0.2, 2.0, "weight of the penalty on activations"),
    "tar": (0.1, 1.0, "weight of the penalty on their changes in time"),
    "layers": (2, 3, "LSTM layers"),
    "embedding": (128, 400, "units of the embedding and of the last LSTM"),
    "units": (128, 1150, "units of the other LSTMs"),
    "batch": (32, 20, "streams of text that are read at once"),
    "window": (35, 70, "words of a stream in one step"),
    "epochs": (6, 500, "passes over the text"),
    "optimizer": ("adam", "sgd", "adam or sgd"),
    "learning_rate": (0.004, 30.0, "of the optimizer"),
    "weight_decay": (0.0, 1.2e-6, "of the optimizer"),
    "average": (0.99, 0.999, "momentum of the average of the weights"),
    "text_share": (0.4, 1.0, "how much to take of the text that is here, in (0, 1]"),
    "min_count": (10, 2, "words seen less often are <unk>, if it is not in the text"),
}
NAMES = ["history.csv", "perplexity.png", "model.keras", "saved_model"]
NAMES += ["vocabulary.txt", "sample.txt"]


def build_model(words, batch, args):
    """The model for `batch` streams: from numbers of words to logits of the next."""
    # With noise_shape one mask a sequence, the same at each of its words.
    locked = {"q": args.q, "noise_shape": (None, 1, None)}
    initial = keras.initializers.RandomUniform(-0.1, 0.1)
    embedding = keras.layers.ReversibleEmbedding(
        words, args.embedding, embeddings_initializer=initial
    )
    embedding = Bridgeout(embedding, args.embedding_rate, args.q, name="words")
    inputs = keras.Input(batch_shape=(batch, None), dtype="int32")
    x = Sparseout(args.input_rate, name="embedded", **locked)(embedding(inputs))
    for layer in range(1, args.layers + 1):
        last = layer == args.layers
        lstm = keras.layers.LSTM(
            args.embedding if last else args.units,
            return_sequences=True,
            stateful=True,
        )
        x = Bridgeout(lstm, args.recurrent_rate, args.q, ("recurrent_kernel",))(x)
        if not last:
            x = Sparseout(args.between_rate, name=f"lstm{layer}", **locked)(x)
    x = ActivationPenalty(args.tar, "tar")(x)
    x = Sparseout(args.output_rate, name=f"lstm{args.layers}", **locked)(x)
    x = ActivationPenalty(args.ar, "ar")(x)
    # In reverse the embedding is the output layer, on which there is no noise.
    return keras.Model(inputs, embedding(x, reverse=True))


def crossentropy(words, logits):
    """-log of the probability of each word. Keras' own takes twice as long on CPUs."""
    logits = ops.cast(logits, "float32")
    words = ops.cast(words, "int32")[..., None]
    right = ops.take_along_axis(logits, words, axis=-1)[..., 0]
    return ops.logsumexp(logits, axis=-1) - right


def reset_states(model):
    """Sets the states of the LSTMs to 0: what comes next follows no other text."""
    for layer in model.layers:
        lstm = getattr(layer, "layer", layer)
        if isinstance(lstm, keras.layers.LSTM):
            lstm.reset_state()


class StateReset(keras.callbacks.Callback):
    """Each pass over a text begins with states of 0, and leaves none behind."""

    def on_epoch_begin(self, epoch, logs=None):
        reset_states(self.model)

    def on_test_begin(self, logs=None):
        reset_states(self.model)

    def on_test_end(self, logs=None):
        reset_states(self.model)


class Perplexity(keras.callbacks.Callback):
    """Adds the perplexity, exp of the mean crossentropy, also of the test text."""

    def __init__(self, test):
        super().__init__()
        self.test = test

    def on_epoch_end(self, epoch, logs=None):
        # With the averaged weights, as those of validation are.
        callbacks = [StateReset(), keras.callbacks.SwapEMAWeights()]
        tested = self.model.evaluate(
            self.test, callbacks=callbacks, verbose=0, return_dict=True
        )
        logs["perplexity"] = np.exp(logs["crossentropy"])
        logs["val_perplexity"] = np.exp(logs["val_crossentropy"])
        logs["test_perplexity"] = np.exp(tested["crossentropy"])


def make_optimizer(args):
    kinds = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}
    return kinds[args.optimizer](
        args.learning_rate,
        weight_decay=args.weight_decay,
        global_clipnorm=0.25,
        use_ema=True,
        ema_momentum=args.average,
    )


def train(model, streams, args, csv):
    """Fits `model`, and writes into `csv` what `fit` shows; returns the history."""
    optimizer = make_optimizer(args)
    model.compile(optimizer, crossentropy, weighted_metrics=[crossentropy])
    rng = np.random.default_rng(args.seed)
    valid, test = (lm_text.windows(streams[s], args.window) for s in ("valid", "test"))
    # Those after it see what a callback adds.
    callbacks = [
        StateReset(),
        keras.callbacks.SwapEMAWeights(),
        SparsityTracker(metrics="hoyer"),
        Perplexity(test),
        keras.callbacks.CSVLogger(csv),
    ]
    return model.fit(
        lm_text.windows(streams["train"], args.window, rng),
        epochs=args.epochs,
        shuffle=False,
        validation_data=valid,
        callbacks=callbacks,
    ).history


def write_text(model, vocabulary, length, temperature, seed):
    """Text that `model`, of one stream, goes on with from the beginning of a line."""
    rng = np.random.default_rng(seed)
    reset_states(model)
    word, words = vocabulary.index(lm_text.EOS), []
    for _ in range(length):
        logits = np.asarray(model(np.array([[word]])))[0, 0] / temperature
        logits[vocabulary.index(lm_text.UNKNOWN)] = -np.inf
        # The largest of the logits with Gumbel noise is a draw from their softmax.
        word = int(np.argmax(logits + rng.gumbel(size=len(logits))))
        words.append(vocabulary[word])
    return " ".join(words).replace(f" {lm_text.EOS}", "\n\n")


def draw(history, title, path):
    """Perplexity of each split and Hoyer sparsity of each place, by epoch."""
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(8, 7), sharex=True, layout="constrained"
    )
    epochs = range(1, len(history["perplexity"]) + 1)
    lines = {"training, with noise": "", "validation": "val_", "test": "test_"}
    styles = (("0.6", "-"), ("black", "-"), ("black", ":"))
    for (label, prefix), (colour, style) in zip(lines.items(), styles, strict=True):
        top.plot(epochs, history[f"{prefix}perplexity"], style, c=colour, label=label)
    places = [key for key in history if key.startswith("val_hoyer/")]
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(places)))
    for key, colour in zip(places, colours, strict=True):
        name = key.removeprefix("val_hoyer/")
        bottom.plot(epochs, history[key], c=colour, label=name)
    top.set_yscale("log")
    top.yaxis.set_major_formatter("{x:.0f}")
    top.yaxis.set_minor_formatter("{x:.0f}")
    top.set_ylabel("perplexity")
    bottom.set_ylabel("Hoyer sparsity in validation\n(0 dense, 1 sparse)")
    bottom.set_xlabel("epoch")
    bottom.xaxis.get_major_locator().set_params(integer=True)
    for panel in (top, bottom):
        panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        panel.grid(alpha=0.3, which="both")
    figure.suptitle(title)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    presets = ("small", "awd")
    parser.add_argument("--preset", choices=presets, default="small")
    parser.add_argument("--data", help="folder of a text of your own")
    parser.add_argument("--out", default="out/lstm_lm", help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(%(default)s)")
    parser.add_argument(
        "--temperature", type=float, default=0.8, help="of the sample (%(default)s)"
    )
    for name, (small, awd, what) in SETTINGS.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(small), help=f"{what} ({small}, {awd})")
    args = parser.parse_args()
    for name, values in SETTINGS.items():
        if getattr(args, name) is None:
            setattr(args, name, values[presets.index(args.preset)])
    for name in ("layers", "embedding", "units", "batch", "window", "epochs"):
        if getattr(args, name) < 1:
            parser.error(
                f"--{name} must be at least 1. Received: {getattr(args, name)}."
            )
    if not 0 <= args.seed < 2**32:
        parser.error(f"--seed must be from 0 to 2^32 - 1. Received: {args.seed}.")
    if not 0 < args.text_share <= 1:
        parser.error(f"--text-share must be in (0, 1]. Received: {args.text_share}.")
    if not args.temperature > 0:
        parser.error(f"--temperature must be above 0. Received: {args.temperature}.")
    if Path(args.out).exists() and not Path(args.out).is_dir():
        parser.error(f"--out must be a folder. Received: {args.out}, a file.")
    try:
        build_model(2, 1, args)
        make_optimizer(args)
    except ValueError as error:
        parser.error(str(error))
    return args


def load_text(args):
    """Returns the streams of each split, and the vocabulary."""
    if args.data:
        text = lm_text.read_folder(args.data)
    else:
        text = lm_text.read_austen(args.text_share)
    vocabulary = lm_text.make_vocabulary(text["train"], args.min_count)
    print(f"vocabulary: {len(vocabulary)} words")
    streams = {}
    for split, words in text.items():
        numbers = lm_text.encode(words, vocabulary)
        unknown = np.mean(numbers == vocabulary.index(lm_text.UNKNOWN))
        print(f"{split}: {len(words)} words, {unknown:.1%} of them <unk>")
        streams[split] = lm_text.batchify(numbers, args.batch, args.window, split)
    return streams, vocabulary


def main():
    args = parse_arguments()
    streams, vocabulary = load_text(args)
    output = Output(args.out, NAMES)
    keras.utils.set_random_seed(args.seed)
    model = build_model(len(vocabulary), args.batch, args)
    model.summary()
    history = train(model, streams, args, output.path("history.csv"))
    output.done("history.csv")
    draw(history, f"q = {args.q:g}", output.path("perplexity.png"))
    output.done("perplexity.png")

    # Of one stream, to go on with any text word by word.
    single = build_model(len(vocabulary), 1, args)
    single.set_weights(model.get_weights())
    single.save(output.path("model.keras"))
    output.done("model.keras")
    # Without it a batch of 1 is exported as one of any size, which states can't have.
    signature = [keras.InputSpec("int32", shape=(1, None))]
    single.export(
        output.path("saved_model"), input_signature=signature, verbose=False
    )
    output.done("saved_model")
    output.path("vocabulary.txt").write_text("\n".join(vocabulary), "utf-8")
    output.done("vocabulary.txt")
    sample = write_text(single, vocabulary, 120, args.temperature, args.seed)
    output.path("sample.txt").write_text(sample, "utf-8")
    output.done("sample.txt")

    print(f"\n{sample}\n\nPerplexity after {args.epochs} epochs: ", end="")
    last = {name: figures[-1] for name, figures in history.items()}
    print(
        f"training {last['perplexity']:.1f}, validation {last['val_perplexity']:.1f}, "
        f"test {last['test_perplexity']:.1f}\nHoyer sparsity in validation: ",
        end="",
    )
    print(
        ", ".join(
            f"{n.split('/')[1]} {f:.3f}" for n, f in last.items() if "val_hoyer/" in n
        )
    )
    print(f"\nWritten into {output.folder}: {', '.join(output.names)}")


if __name__ == "__main__":
    main()
