"""A word-level LSTM language model with Sparseout in all places of AWD-LSTM.

    python examples/lstm_lm.py                     # Jane Austen, in minutes
    python examples/lstm_lm.py --q 2               # with dropout, as AWD-LSTM has it
    python examples/lstm_lm.py --data ptb --preset awd     # text of your own

The model is AWD-LSTM (Merity, Keskar & Socher, 2017, https://arxiv.org/abs/1708.02182).
Bridgeout puts noise on rows of the embedding and on recurrent weights. Sparseout puts
it on the embedded words, between the LSTM layers and on the last output, with one mask
a sequence. One q serves all of them. Input and output embeddings are tied, activations
and their changes in time are penalized, and the weights are averaged. --preset awd has
the published sizes and rates for the Penn Treebank.

The model differs from the published one in three ways. The weights are averaged by
Keras, as an exponential moving average from the first step on. The output has no bias.
Windows have one length, since XLA would compile a program for each; each epoch cuts
them at another offset instead.

The default text comes with the repository, and --preset small takes a part of it.
--data is a folder with train.txt, valid.txt and test.txt, or with the Penn Treebank's
ptb.train.txt ..., or with WikiText-2's wiki.train.tokens .... Words that are rare in
the training text become <unk>, unless the text already contains <unk>. Each run writes
a folder with the history as CSV, a picture, a sample of text, the vocabulary, the model
as .keras and an exported SavedModel.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import lm_settings
import lm_text
import numpy as np
from keras import ops
from run_folder import Output

from keras_sparseout import (
    ActivationPenalty,
    Bridgeout,
    Sparseout,
    SparsityTracker,
    plots,
)

# The streams of each split.
Streams = dict[str, np.ndarray]

NAMES = ["history.csv", "perplexity.png", "model.keras", "saved_model"]
NAMES += ["vocabulary.txt", "sample.txt"]


def build_model(words: int, batch: int, args: argparse.Namespace) -> keras.Model:
    """The model for `batch` streams: from words, as numbers, to logits of the next."""
    # With this noise_shape all words of a sequence share a mask.
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
    # In reverse the embedding is the output layer, without noise.
    return keras.Model(inputs, embedding(x, reverse=True))


def crossentropy(words, logits):
    """-log of the probability of each word, in one row for all streams."""
    logits = ops.cast(logits, "float32")
    words = ops.cast(words, "int32")[..., None]
    right = ops.take_along_axis(logits, words, axis=-1)[..., 0]
    # Keras averages over rows. In one row, words in a short window count no more than
    # others.
    return ops.ravel(ops.logsumexp(logits, axis=-1) - right)


class Perplexity(keras.metrics.MeanMetricWrapper):
    """exp of the mean crossentropy of all words."""

    def __init__(self):
        super().__init__(crossentropy, name="perplexity")

    def result(self):
        """The perplexity of the words so far."""
        return ops.exp(super().result())


def reset_states(model: keras.Model) -> None:
    """Sets the states of the LSTMs to 0, so that a new text can begin."""
    for layer in model.layers:
        lstm = getattr(layer, "layer", layer)
        if isinstance(lstm, keras.layers.LSTM):
            lstm.reset_state()


def state_reset(model: keras.Model) -> keras.callbacks.Callback:
    """A callback that sets the states to 0 before and after each pass over a text."""

    def reset(*_):
        reset_states(model)

    return keras.callbacks.LambdaCallback(
        on_epoch_begin=reset, on_test_begin=reset, on_test_end=reset
    )


def make_optimizer(args: argparse.Namespace) -> keras.optimizers.Optimizer:
    kinds = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}
    return kinds[args.optimizer](
        args.learning_rate,
        weight_decay=args.weight_decay,
        global_clipnorm=0.25,
        use_ema=True,
        ema_momentum=args.average,
    )


def train(
    model: keras.Model, streams: Streams, args: argparse.Namespace, csv: Path
) -> dict[str, list[float]]:
    """Fits `model`, writes its history into `csv`, and returns it."""
    rng = np.random.default_rng(args.seed)
    training = lm_text.windows(streams["train"], args.window, rng)
    validation = lm_text.windows(streams["valid"], args.window)
    testing = lm_text.windows(streams["test"], args.window)

    def test(epoch, logs):
        # With the averaged weights, as in validation.
        callbacks = [state_reset(model), keras.callbacks.SwapEMAWeights()]
        figures = model.evaluate(
            testing, callbacks=callbacks, verbose=0, return_dict=True
        )
        logs["test_perplexity"] = figures["perplexity"]

    model.compile(make_optimizer(args), crossentropy, metrics=[Perplexity()])
    return model.fit(
        training,
        epochs=args.epochs,
        shuffle=False,
        validation_data=validation,
        # A callback sees the figures that those before it add.
        callbacks=[
            state_reset(model),
            keras.callbacks.SwapEMAWeights(),
            SparsityTracker(metrics="hoyer"),
            keras.callbacks.LambdaCallback(on_epoch_end=test),
            keras.callbacks.CSVLogger(csv),
        ],
    ).history


def write_text(
    model: keras.Model,
    vocabulary: Sequence[str],
    length: int,
    temperature: float,
    seed: int,
) -> str:
    """Lets a model of one stream write `length` words, from the beginning of a line."""
    rng = np.random.default_rng(seed)
    reset_states(model)
    word, words = vocabulary.index(lm_text.EOS), []
    for _ in range(length):
        logits = np.asarray(model(np.array([[word]])))[0, 0] / temperature
        logits[vocabulary.index(lm_text.UNKNOWN)] = -np.inf
        # The largest logit with Gumbel noise is a draw from the softmax of the logits.
        word = int(np.argmax(logits + rng.gumbel(size=len(logits))))
        words.append(vocabulary[word])
    lines = " ".join(words).split(lm_text.EOS)
    return "\n\n".join(line.strip() for line in lines)


def draw(history: Mapping[str, list[float]], path: Path) -> None:
    """Draws the perplexities, and below them the sparsity of each place, by epoch."""
    figure = plots.sparsity(history, "hoyer", accuracy="perplexity")
    top = figure.axes[0]
    epochs = range(1, len(history["test_perplexity"]) + 1)
    top.plot(
        epochs, history["test_perplexity"], ":", color="black", label="test_perplexity"
    )
    top.set_yscale("log")
    top.yaxis.set_major_formatter("{x:.4g}")
    top.yaxis.set_minor_formatter("{x:.4g}")
    top.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path)


def load_text(args: argparse.Namespace) -> tuple[Streams, list[str]]:
    """Returns the streams of each split, and the vocabulary."""
    if args.data is not None:
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
    args = lm_settings.parse_arguments(__doc__)
    streams, vocabulary = load_text(args)
    output = Output(args.out, NAMES)
    keras.utils.set_random_seed(args.seed)
    model = build_model(len(vocabulary), args.batch, args)
    model.summary()
    history = train(model, streams, args, output.path("history.csv"))
    output.done("history.csv")
    perplexity = history["perplexity"][-1]
    if not np.isfinite(perplexity):
        raise SystemExit(
            f"The perplexity is {perplexity:g}, so no model is written. Received: "
            f"--learning-rate {args.learning_rate:g}. Give a smaller one."
        )
    draw(history, output.path("perplexity.png"))
    output.done("perplexity.png")

    # A model of one stream, which can go on with any text word by word.
    single = build_model(len(vocabulary), 1, args)
    single.set_weights(model.get_weights())
    single.save(output.path("model.keras"))
    output.done("model.keras")
    # Without it Keras exports a model of any batch size. States have a fixed one.
    signature = [keras.InputSpec("int32", shape=(1, None))]
    single.export(output.path("saved_model"), input_signature=signature, verbose=False)
    output.done("saved_model")
    output.path("vocabulary.txt").write_text("\n".join(vocabulary), "utf-8")
    output.done("vocabulary.txt")
    sample = write_text(single, vocabulary, 120, args.temperature, args.seed)
    output.path("sample.txt").write_text(sample, "utf-8")
    output.done("sample.txt")

    last = {name: figures[-1] for name, figures in history.items()}
    print(f"\n{sample}\n\nAfter {args.epochs} epochs at q = {args.q:g}:")
    for name, label in {"": "training", "val_": "validation", "test_": "test"}.items():
        print(f"{label:<12}perplexity {last[f'{name}perplexity']:.1f}")
    for name, figure in last.items():
        if name.startswith("val_hoyer/"):
            place = name.removeprefix("val_hoyer/")
            print(f"{place:<12}Hoyer sparsity {figure:.3f} in validation")
    print(f"\nWritten into {output.folder}: {', '.join(output.names)}")


if __name__ == "__main__":
    main()
