"""Text for a word-level language model: reading, vocabulary, windows of streams.

`<eos>` ends a line. What is wrong with the text ends the program with a message.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

AUSTEN = Path(__file__).parent / "data" / "austen" / "1.0.0"
SPLITS = ("train", "valid", "test")
# Names of the files of one's own text, of the Penn Treebank, of WikiText-2.
LAYOUTS = ("{}.txt", "ptb.{}.txt", "wiki.{}.tokens")
EOS, UNKNOWN = "<eos>", "<unk>"


def read_austen(share=1.0):
    """Returns the words of Jane Austen's novels, a dict of lists by split.

    Args:
        share: How much of each split to take, from its beginning. The order of the
            novels is the same in all of them.
    """
    try:
        builder = tfds.builder_from_directory(AUSTEN)
        records = builder.as_dataset(split=list(SPLITS), batch_size=-1)
        texts = [record["text"].numpy()[0].tobytes().decode() for record in records]
    except Exception as error:  # TFDS raises many kinds, and the remedy is the same.
        raise SystemExit(
            f"The text that comes with the example must be readable. Received: {AUSTEN}"
            f", which fails with {type(error).__name__}: "
            f"{str(error).strip().splitlines()[0][:300]}\n"
            "Restore that folder with git checkout, or from a new clone."
        ) from error
    words = {split: _words(text) for split, text in zip(SPLITS, texts, strict=True)}
    return {split: each[: int(share * len(each))] for split, each in words.items()}


def read_folder(folder):
    """Returns the words of a user's text, a dict of lists by split.

    Args:
        folder: Path of a folder of train.txt, valid.txt and test.txt, or of
            ptb.train.txt, ..., or of wiki.train.tokens, ...; words have spaces between
            them.
    """
    folder = Path(folder)
    rule = "--data must be a folder of train.txt, valid.txt and test.txt."
    if not folder.is_dir():
        what = "a file" if folder.exists() else "which does not exist"
        raise SystemExit(
            f"{rule} Received: {folder}, {what}. Give another one, or leave --data out "
            "for the text that comes with the example."
        )
    layouts = [
        [folder / layout.format(split) for split in SPLITS] for layout in LAYOUTS
    ]
    having = [paths for paths in layouts if any(path.is_file() for path in paths)]
    if len(having) != 1:
        # The first that is there of each kind.
        firsts = [next(filter(Path.is_file, paths)).name for paths in having]
        found = " and ".join(firsts) or "none of them"
        raise SystemExit(
            f"{rule} Received: {folder}, with {found}. It may be ptb.train.txt ... or "
            "wiki.train.tokens ... too, but files of one kind alone."
        )
    missing = [path.name for path in having[0] if not path.is_file()]
    if missing:
        raise SystemExit(
            f"{rule} Received: {folder}, without {' and '.join(missing)}. Put all "
            "three splits there, with no sentence in two of them."
        )
    return dict(zip(SPLITS, map(_read_file, having[0]), strict=True))


def _read_file(path):
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
        # Text in UTF-16 may be valid in UTF-8, with a zero byte beside each letter.
        wrong = content.find(0)
    except UnicodeDecodeError as error:
        wrong = error.start
    if wrong >= 0:
        raise SystemExit(
            f"--data must hold text in UTF-8. Received: {path}, with the byte "
            f"{content[wrong]:#04x} at offset {wrong}. Convert it, for example with "
            "iconv -f latin1 -t utf-8."
        )
    # A byte order mark is no part of the first word.
    text = text.removeprefix("\ufeff")
    if not text.split():
        raise SystemExit(
            f"--data must hold text in each file. Received: {path}, of {len(content)} "
            "bytes and no word. Fill it."
        )
    return _words(text)


def _words(text):
    lines = text.removesuffix("\n").split("\n")
    # An empty line has its <eos> too, as in the published counts of WikiText-2.
    return [word for line in lines for word in (*line.split(), EOS)]


def make_vocabulary(words, min_count):
    """Returns the words of a model, a list by falling frequency.

    Args:
        words: Those of the training text. If `<unk>` is among them, the vocabulary was
            chosen when the text was made, and all of them are kept.
        min_count: Those seen less often become `<unk>` otherwise.
    """
    counts = Counter(words)
    if UNKNOWN in counts:
        min_count = 1
    kept = [word for word, n in counts.most_common() if n >= min_count or word == EOS]
    if len({*kept} - {EOS, UNKNOWN}) < 2:
        seen = f"{min_count} times or more often" if min_count > 1 else "at all"
        raise SystemExit(
            "The training text must have at least two words that are seen often enough."
            f" Received: {len({*counts} - {EOS, UNKNOWN})} words, of which "
            f"{len({*kept} - {EOS, UNKNOWN})} seen {seen}. Give another text with "
            "--data, more of the one that is here with --text-share, or a lower "
            "--min-count."
        )
    return kept if UNKNOWN in counts else [*kept, UNKNOWN]


def encode(words, vocabulary):
    """Returns the numbers of `words`, an int32 array."""
    numbers = {word: number for number, word in enumerate(vocabulary)}
    unknown = numbers[UNKNOWN]
    return np.array([numbers.get(word, unknown) for word in words], "int32")


def batchify(numbers, batch, window, split):
    """Returns `batch` contiguous streams of a text as rows; its last words are lost.

    Args:
        numbers: Array of the numbers of its words.
        batch: How many streams.
        window: How many words, and the one after them, a stream has at least.
        split: What the text is called.
    """
    if len(numbers) < batch * (window + 1):
        raise SystemExit(
            f"The {split} text must fill one batch of windows, --batch x (--window + 1)"
            f" = {batch} x {window + 1} = {batch * (window + 1)} words. Received: "
            f"{len(numbers)} words. Give a larger text, or a smaller --batch or "
            "--window."
        )
    length = len(numbers) // batch
    return numbers[: batch * length].reshape(batch, length)


def windows(streams, window, rng=None):
    """Returns a data set of windows of all streams, in order, and the words after them.

    Args:
        streams: Array of numbers, one row a stream.
        window: Length of a window.
        rng: A `numpy.random.Generator` for training: each pass begins at an offset that
            is drawn anew, so that windows are not always cut at the same words, and all
            have one length. None: from the first word to the last, for which the last
            window is shorter if need be.
    """
    targets = streams.shape[1] - 1
    # So that each offset below the window's length leaves as many windows.
    count = max(1, (targets - window + 1) // window) if rng else -(-targets // window)

    def cut():
        offsets = min(window, targets - count * window + 1)
        first = rng.integers(offsets) if rng else 0
        for start in range(first, first + count * window, window):
            stop = min(start + window, targets)
            yield streams[:, start:stop], streams[:, start + 1 : stop + 1]

    spec = tf.TensorSpec((len(streams), None), tf.int32)
    data = tf.data.Dataset.from_generator(cut, output_signature=(spec, spec))
    return data.apply(tf.data.experimental.assert_cardinality(count))
