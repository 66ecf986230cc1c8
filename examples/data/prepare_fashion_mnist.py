"""Write the Fashion-MNIST subset of the example as a prepared TFDS directory.

The subset holds the first 10,000 of the 60,000 official training images and all
10,000 official test images, in their original order. The source folder must hold
the four files of https://github.com/zalandoresearch/fashion-mnist, unchanged:

    train-images-idx3-ubyte.gz   train-labels-idx1-ubyte.gz
    t10k-images-idx3-ubyte.gz    t10k-labels-idx1-ubyte.gz

The Debian package `dataset-fashion-mnist` puts them in
/usr/share/datasets/fashion-mnist. Usage:

    python prepare_fashion_mnist.py SOURCE --out OUT

writes OUT/fashion_mnist_20k/1.0.0, to be read with
`tfds.builder_from_directory("OUT/fashion_mnist_20k/1.0.0")`.
"""

import argparse
import gzip
import itertools
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

NAME = "fashion_mnist_20k"
VERSION = "1.0.0"
SIDE = 28
CLASS_NAMES = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]
# Split: (prefix of the idx files, images in them, images kept).
SPLITS = {"train": ("train", 60_000, 10_000), "test": ("t10k", 10_000, 10_000)}
SHARDS_PER_SPLIT = 2
MAX_FILE_BYTES = 5_000_000

DESCRIPTION = """\
A subset of Fashion-MNIST: the first 10,000 of the 60,000 official training images
and all 10,000 official test images, in their original order. Each example is a
28x28 grayscale image of an article of clothing with a label from 10 classes.
"""
CITATION = """\
@article{xiao2017fashion,
  title   = {Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
             Learning Algorithms},
  author  = {Xiao, Han and Rasul, Kashif and Vollgraf, Roland},
  journal = {arXiv preprint arXiv:1708.07747},
  year    = {2017}
}
"""


def read_idx(path, magic, shape):
    """Return the uint8 array of a gzipped idx file, after checking its header."""
    remedy = (
        "Pass the folder of the four unchanged .gz files of "
        "https://github.com/zalandoresearch/fashion-mnist."
    )
    if not path.is_file():
        raise FileNotFoundError(
            f"`source` must be a folder that holds {path.name}. "
            f"Received: source={path.parent}, without that file. {remedy}"
        )
    try:
        content = gzip.decompress(path.read_bytes())
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"{path.name} in `source` must be a complete gzip file. "
            f"Received: {path}, which fails with `{error}`. {remedy}"
        ) from error
    expected = struct.pack(f">{1 + len(shape)}I", magic, *shape)
    header, body = content[: len(expected)], content[len(expected) :]
    if header != expected:
        raise ValueError(
            f"{path.name} in `source` must start with the idx header "
            f"{expected.hex(' ', 4)} (magic number {magic}, shape {shape}). "
            f"Received: {header.hex(' ', 4)}. {remedy}"
        )
    size = int(np.prod(shape))
    if len(body) != size:
        raise ValueError(
            f"{path.name} in `source` must hold {size} bytes after its header. "
            f"Received: {len(body)} bytes. {remedy}"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def read_split(source, split):
    """Return the images and labels of a split that the subset keeps."""
    prefix, count, kept = SPLITS[split]
    images = read_idx(
        source / f"{prefix}-images-idx3-ubyte.gz", 0x803, (count, SIDE, SIDE)
    )
    labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz", 0x801, (count,))
    if labels.max() >= len(CLASS_NAMES):
        raise ValueError(
            f"The labels of `source` must be below {len(CLASS_NAMES)}. "
            f"Received: {labels.max()} in {prefix}-labels-idx1-ubyte.gz. "
            "Pass the folder of the unchanged files of Fashion-MNIST."
        )
    return images[:kept], labels[:kept]


def write_shards(folder, split, images, labels):
    """Write a split as TFRecord shards, in order."""
    bounds = np.linspace(0, len(images), SHARDS_PER_SPLIT + 1).astype(int)
    for shard, (start, stop) in enumerate(itertools.pairwise(bounds)):
        name = f"{NAME}-{split}.tfrecord-{shard:05d}-of-{SHARDS_PER_SPLIT:05d}"
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for image, label in zip(
                images[start:stop], labels[start:stop], strict=True
            ):
                example = tf.train.Example()
                feature = example.features.feature
                feature["image"].bytes_list.value.append(
                    tf.io.encode_png(image[..., None], compression=9).numpy()
                )
                feature["label"].int64_list.value.append(int(label))
                # The order of the two features varies from run to run otherwise.
                writer.write(example.SerializeToString(deterministic=True))


def write_metadata(folder):
    """Write the files that make a folder of shards a prepared TFDS directory."""
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        version=VERSION,
        features={
            "image": tfds.features.Image(shape=(SIDE, SIDE, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=CLASS_NAMES),
        },
        supervised_keys=("image", "label"),
        # Readers then give the examples in their original order.
        disable_shuffling=True,
        description=DESCRIPTION,
        homepage="https://github.com/zalandoresearch/fashion-mnist",
        citation=CITATION,
        license="MIT",
        check_data=False,
    )


def check(folder, arrays):
    """Raise RuntimeError unless `folder` gives `arrays` and has small files."""
    builder = tfds.builder_from_directory(folder)
    for split, (images, labels) in arrays.items():
        read = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
        if not (
            np.array_equal(read["image"][..., 0], images)
            and np.array_equal(read["label"], labels)
        ):
            raise RuntimeError(f"The written {split} split differs from its source.")
    for path in folder.iterdir():
        if path.stat().st_size > MAX_FILE_BYTES:
            raise RuntimeError(
                f"A file must have at most {MAX_FILE_BYTES} bytes. "
                f"Received: {path.name} with {path.stat().st_size} bytes. "
                "Increase SHARDS_PER_SPLIT."
            )


def main():
    parser = argparse.ArgumentParser(
        description="Write a subset of Fashion-MNIST as a prepared TFDS directory."
    )
    parser.add_argument("source", type=Path, help="folder of the four idx .gz files")
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
        arrays = {split: read_split(args.source, split) for split in SPLITS}
    except (OSError, ValueError) as error:
        parser.error(str(error))

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tmp-") as parent:
        folder = Path(parent) / VERSION
        folder.mkdir()
        for split, (images, labels) in arrays.items():
            write_shards(folder, split, images, labels)
        write_metadata(folder)
        check(folder, arrays)
        folder.rename(target)

    for split, (_, labels) in arrays.items():
        counts = np.bincount(labels, minlength=len(CLASS_NAMES)).tolist()
        print(f"{split}: {len(labels)} images, per class {counts}")
    for path in sorted(target.iterdir()):
        print(f"{path.stat().st_size:>9} {path}")


if __name__ == "__main__":
    main()
