"""Text for a word-level language model: reading, vocabulary, windows of streams.

`<eos>` ends a line. If something is wrong with the text, the program ends with a
message.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

AUSTEN = Path(__file__).parent / "data" / "austen" / "1.0.0"
SPLITS = ("train", "valid", "test")
# Names of files: the user's own text, the Penn Treebank, WikiText-2.
LAYOUTS = ("{}.txt", "ptb.{}.txt", "wiki.{}.tokens")
EOS, UNKNOWN = "<eos>", "<unk>"


def read_austen(share: float = 1.0) -> dict[str, list[str]]:
    """Returns the words of Jane Austen's novels, a dict of lists by split.

    Args:
        share: How much of each split to take, from its beginning. All splits have the
            novels in the same order.
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


def read_folder(folder: str | Path) -> dict[str, list[str]]:
    """Returns the words of a user's text, a dict of lists by split.

    Args:
        folder: Path of a folder with train.txt, valid.txt and test.txt, or with
            ptb.train.txt, ..., or with wiki.train.tokens, .... Spaces separate words.
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
        # The first file of each kind.
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


def _read_file(path: Path) -> list[str]:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
        # UTF-16 may be valid UTF-8 too, with a zero byte beside each letter.
        wrong = content.find(0)
    except UnicodeDecodeError as error:
        wrong = error.start
    if wrong >= 0:
        raise SystemExit(
            f"--data must hold text in UTF-8. Received: {path}, with the byte "
            f"{content[wrong]:#04x} at offset {wrong}. Convert it, for example with "
            "iconv -f latin1 -t utf-8."
        )
    # A byte order mark does not belong to the first word.
    text = text.removeprefix("\ufeff")
    if not text.split():
        raise SystemExit(
            f"--data must hold text in each file. Received: {path}, of {len(content)} "
            "bytes and no word. Fill it."
        )
    return _words(text)


def _words(text: str) -> list[str]:
    lines = text.removesuffix("\n").split("\n")
    # Empty lines have an <eos> too, as in the published counts of WikiText-2.
    return [word for line in lines for word in (*line.split(), EOS)]


def make_vocabulary(words: Iterable[str], min_count: int) -> list[str]:
    """Returns the words that a model knows, the most frequent first.

    Args:
        words: The training text. If it contains `<unk>`, its vocabulary was chosen when
            the text was made, and all words are kept.
        min_count: Otherwise words that are seen less often become `<unk>`.
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
            "--data, more of the default text with --text-share, or a lower "
            "--min-count."
        )
    return kept if UNKNOWN in counts else [*kept, UNKNOWN]


def encode(words: Iterable[str], vocabulary: Sequence[str]) -> np.ndarray:
    """Returns the numbers of `words`, an int32 array."""
    numbers = {word: number for number, word in enumerate(vocabulary)}
    unknown = numbers[UNKNOWN]
    return np.array([numbers.get(word, unknown) for word in words], "int32")


def batchify(numbers: np.ndarray, batch: int, window: int, split: str) -> np.ndarray:
    """Cuts a text into contiguous streams, the rows of an array.

    Up to `batch - 1` words at its end are lost.

    Args:
        numbers: The numbers of its words.
        batch: Number of streams.
        window: Words in a window. A stream must have at least one more.
        split: Name of the text for messages.
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


def windows(
    streams: np.ndarray, window: int, rng: np.random.Generator | None = None
) -> tf.data.Dataset:
    """Returns a data set of windows of all streams, in order, and the words after them.

    Args:
        streams: Array of numbers, one row a stream.
        window: Length of a window.
        rng: For training. Each pass draws the offset where it begins, so windows are
            not always cut at the same words. All windows have the same length. Without
            `rng`, a pass goes from the first word to the last one, and the last window
            may be shorter.
    """
    targets = streams.shape[1] - 1
    # In training, as many windows as fit behind any offset below the window's length.
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
