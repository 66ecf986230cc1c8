"""Compares the masks of streams.c with those of `utils.counter_hash`, bit by bit.

python -m benchmarks.quality.check

compiles streams.c, and compares 2^14 words of each kind of stream.
"""

import itertools
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_sparseout.utils import counter_hash

SOURCE = Path(__file__).parent / "streams.c"
WORDS = 2**14
N = 300


def main():
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "streams"
        subprocess.run(["cc", "-O3", "-o", program, SOURCE], check=True)
        for kind, seed, rate in itertools.product(MASKS, (0, 5, -(2**63)), (0, 0.5)):
            words = read(program, kind, seed, rate)
            np.testing.assert_array_equal(words, expected(kind, seed, rate))
            print(f"{kind}, seed {seed}, rate {rate}: {WORDS} equal words")


def read(program, kind, seed, rate):
    command = [str(part) for part in (program, kind, N, seed, rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        raw = process.stdout.read(4 * WORDS)
        process.stdout.close()
    return np.frombuffer(raw, np.uint32)


def expected(kind, seed, rate):
    count = WORDS if rate == 0 else 32 * WORDS
    masks = (MASKS[kind](seed, i) for i in range(count // N + 1))
    h = np.concatenate([counter_hash.bits((N,), *mask) for mask in masks])[:count]
    if rate == 0:
        return h
    return np.packbits(h >= 2**31, bitorder="little").view(np.uint32)


def of_replica(seed, i):
    pair = tf.constant([seed, i // 2], tf.int64)
    return tf.random.experimental.stateless_fold_in(
        pair, tf.constant(i % 2, tf.int64), alg="philox"
    ).numpy()


# By kind of stream: the seed pair of its mask number i, and the mask's first element.
MASKS = {
    "elements": lambda seed, i: ((seed, 0), i * N),
    "steps": lambda seed, i: ((seed, i),),
    "seeds": lambda seed, i: ((seed + i, 0),),
    "replicas": lambda seed, i: (of_replica(seed, i),),
    "blocks": lambda seed, i: ((seed, 0), (i + 1) * 2**32 - N // 2),
}


if __name__ == "__main__":
    main()
