"""Write Jane Austen's six novels, as tokens, as a prepared TFDS directory.

The source folder must hold the novels as plain text, in the files that the R package
janeaustenr is made of (Debian: r-cran-janeaustenr):

    emma.txt             mansfieldpark.txt   northangerabbey.txt
    persuasion.txt       prideprejudice.txt  sensesensibility.txt

Usage:

    python prepare_austen.py SOURCE --out OUT

writes OUT/austen/1.0.0, to be read with
`tfds.builder_from_directory("OUT/austen/1.0.0")`: one record a split, whose `text` are
the bytes of lines of tokens, one line a paragraph.
"""

import argparse
import re
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

NAME = "austen"
VERSION = "1.0.0"
# Chapters of each novel, counted through its volumes.
NOVELS = {
    "sensesensibility.txt": 50,
    "prideprejudice.txt": 61,
    "mansfieldpark.txt": 48,
    "emma.txt": 55,
    "northangerabbey.txt": 31,
    "persuasion.txt": 24,
}
SPLITS = ("train", "valid", "test")
MAX_BYTES = 2_000_000
REMEDY = "Pass the folder of the unchanged files of janeaustenr."

CHAPTER = re.compile(r"^chapter [ivxl\d]+$", re.IGNORECASE | re.MULTILINE)
# What stands between the chapters and is not the author's: headings of volumes, notes
# of printers and editors, rules of stars.
FOREIGN = re.compile(
    r"""^\s*(?:
        volume\ [iv]+ | finis | the\ end
        | \[End\ volume\ one[^]]*\] | \[At\ this\ point\ in\ [^]]*\] | [*\s]+
    )\s*$""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
# An editor's note that ends the file of Northanger Abbey.
NOTE = re.compile(r"^A NOTE ON THE TEXT$.*", re.MULTILINE | re.DOTALL)
TOKEN = re.compile(
    r"""
    (?:mr|mrs|messrs|dr|st|rev|hon|esq|capt|col|wm|edw|etc|&c)\.(?!\w)
    | \b[b-hj-z]\.(?=\W)          # initials of names; not "I." or "a."
    | 's\b                         # a token of its own, as in the Penn Treebank
    | [a-z]+(?:'(?!s\b)[a-z]+)*    # don't, o'clock
    | £?\d+(?:,\d{3})*(?:st|nd|rd|th)?
    | -{2,} | [^\w\s]
    """,
    re.VERBOSE,
)
DESCRIPTION = """\
Jane Austen's six novels as lower-case tokens, one line a paragraph. Of each novel the
chapters whose number ends in 5 are the valid split, in 0 the test split, all others the
train split.
"""


def read_chapters(path, count):
    """Return the chapters of a novel, a list of `count` strings."""
    if not path.is_file():
        raise FileNotFoundError(
            f"`source` must be a folder that holds {path.name}. "
            f"Received: source={path.parent}, without that file. {REMEDY}"
        )
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path.name} in `source` must be UTF-8. Received: the byte "
            f"{error.object[error.start]:#04x} at offset {error.start}. {REMEDY}"
        ) from error
    # What comes before the first heading is the title, and an advertisement.
    chapters = CHAPTER.split(NOTE.sub("", text))[1:]
    if len(chapters) != count:
        raise ValueError(
            f"{path.name} in `source` must have {count} chapters. "
            f"Received: {len(chapters)}. {REMEDY}"
        )
    return chapters


def tokenize(chapter):
    """Return the lines of a chapter: a string of tokens for each paragraph."""
    # Underscores stand for italics.
    text = FOREIGN.sub("\n", chapter).replace("_", "").lower()
    paragraphs = re.split(r"\n\s*\n", text)
    lines = (" ".join(TOKEN.findall(paragraph)) for paragraph in paragraphs)
    return [line for line in lines if line]


def read_splits(source):
    """Return the text of each split, a dict of strings."""
    lines = {split: [] for split in SPLITS}
    for name, count in NOVELS.items():
        chapters = read_chapters(source / name, count)
        for number, chapter in enumerate(chapters, start=1):
            split = {5: "valid", 0: "test"}.get(number % 10, "train")
            lines[split] += tokenize(chapter)
    return {split: "\n".join(each) + "\n" for split, each in lines.items()}


def write(folder, texts):
    """Write the splits, one record each, and the files that describe them."""
    features = tfds.features.FeaturesDict(
        {
            # Text has no compressed encoding.
            "text": tfds.features.Tensor(
                shape=(None,), dtype=np.uint8, encoding=tfds.features.Encoding.ZLIB
            )
        }
    )
    for split, text in texts.items():
        path = folder / f"{NAME}-{split}.tfrecord-00000-of-00001"
        example = {"text": np.frombuffer(text.encode(), np.uint8)}
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(features.serialize_example(example))
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        version=VERSION,
        features=features,
        disable_shuffling=True,
        description=DESCRIPTION,
        homepage="https://cran.r-project.org/package=janeaustenr",
        license="Public domain",
        check_data=False,
    )


def check(folder, texts):
    """Raise RuntimeError unless `folder` gives `texts` and is small."""
    builder = tfds.builder_from_directory(folder)
    for split, text in texts.items():
        [record] = tfds.as_numpy(builder.as_dataset(split=split))
        if record["text"].tobytes() != text.encode():
            raise RuntimeError(f"The written {split} split differs from its source.")
    size = sum(path.stat().st_size for path in folder.iterdir())
    if size > MAX_BYTES:
        raise RuntimeError(
            f"The folder must have at most {MAX_BYTES} bytes. Received: {size} bytes. "
            "Leave a novel out."
        )


def main():
    parser = argparse.ArgumentParser(
        description="Write Jane Austen's novels as a prepared TFDS directory."
    )
    parser.add_argument("source", type=Path, help="folder of the six .txt files")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help=f"folder to write {NAME}/{VERSION} into",
    )
    args = parser.parse_args()
    target = args.out / NAME / VERSION
    if target.exists():
        parser.error(
            f"`--out` must be a folder without {NAME}/{VERSION}. "
            f"Received: {args.out}, which has it. "
            "Remove that folder first, or choose another one."
        )
    try:
        texts = read_splits(args.source)
    except (OSError, ValueError) as error:
        parser.error(str(error))

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tmp-") as parent:
        folder = Path(parent) / VERSION
        folder.mkdir()
        write(folder, texts)
        check(folder, texts)
        folder.rename(target)

    for split, text in texts.items():
        print(f"{split}: {text.count(chr(10))} lines, {len(text.split())} tokens")
    for path in sorted(target.iterdir()):
        print(f"{path.stat().st_size:>9} {path}")


if __name__ == "__main__":
    main()
