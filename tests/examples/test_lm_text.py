"""Text for the language model: what is read, how it is cut, and what is refused."""

import itertools
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def lm_text(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import lm_text

    return lm_text


@pytest.fixture(scope="module")
def novels():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        import lm_text

        return lm_text.read_austen()


@pytest.fixture
def prepare(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES / "data"))
    import prepare_austen

    return prepare_austen


@pytest.fixture
def folder(tmp_path):
    """A folder of three splits, `write` of one of them, or of all, with other bytes."""

    def write(layout="{}.txt", **contents):
        texts = {"train": b"a b a\n", "valid": b"b\n", "test": b"a c\n", **contents}
        for split, content in texts.items():
            if content is not None:
                (tmp_path / layout.format(split)).write_bytes(content)
        return tmp_path

    return write


def test_the_novels_are_whole(lm_text, novels):
    counts = {split: (len(each), each.count("<eos>")) for split, each in novels.items()}
    assert counts == {
        "train": (702161 + 8242, 8242),
        "valid": (78780 + 857, 857),
        "test": (76250 + 892, 892),
    }
    assert " ".join(novels["train"][:5]) == "the family of dashwood had"
    assert not {word for word in novels["train"] if word != word.lower()}
    assert "<unk>" not in novels["train"]
    # An editor's, at the end of a novel.
    assert "signet" not in {*novels["train"], *novels["valid"], *novels["test"]}
    assert sum(path.stat().st_size for path in lm_text.AUSTEN.iterdir()) < 2_000_000


def test_a_share_is_taken_from_the_beginning(lm_text, novels):
    for split, words in lm_text.read_austen(0.1).items():
        assert len(words) == len(novels[split]) // 10
        assert words == novels[split][: len(words)]


def test_no_sentence_is_in_two_splits(novels):
    sentences = {}
    for split, words in novels.items():
        each = re.split(r"(?<=[.!?]) |<eos>", " ".join(words))
        # The author wrote shorter ones more than once: "I knew how it would be."
        sentences[split] = {s.strip() for s in each if len(s.split()) > 8}
        assert len(sentences[split]) > 2000
    for one, other in itertools.combinations(sentences.values(), 2):
        assert not one & other


def test_novels_are_split_by_chapters(prepare, tmp_path):
    for name, count in prepare.NOVELS.items():
        chapters = [f"CHAPTER {n}\n\n\n{name} word{n}!\n" for n in range(1, count + 1)]
        (tmp_path / name).write_text(
            "TITLE\n\nBy Jane Austen\n\n" + "\n".join(chapters)
        )
    texts = prepare.read_splits(tmp_path)
    numbers = {
        split: [int(n) for n in re.findall(r"word (\d+) !", text)]
        for split, text in texts.items()
    }
    assert {n % 10 for n in numbers["valid"]} == {5}
    assert {n % 10 for n in numbers["test"]} == {0}
    assert {n % 10 for n in numbers["train"]} == {1, 2, 3, 4, 6, 7, 8, 9}
    assert sum(map(len, numbers.values())) == sum(prepare.NOVELS.values())
    assert "title" not in texts["train"]


def test_paragraphs_become_lines_of_tokens(prepare):
    chapter = """\


"You don't say so, _Mr._ Weston's son-in-law--" cried
she; it cost £20,000. O'clock! I.

VOLUME II

* * * * *

Colonel F---- of W. (she said).
"""
    assert prepare.tokenize(chapter) == [
        "\" you don't say so , mr. weston 's son - in - law -- \" cried she ; it cost "
        "£20,000 . o'clock ! i .",
        "colonel f ---- of w. ( she said ) .",
    ]


def test_other_sources_are_refused(prepare, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"that holds sensesensibility.txt"):
        prepare.read_splits(tmp_path)
    (tmp_path / "sensesensibility.txt").write_text("CHAPTER 1\n\nOne.\n")
    with pytest.raises(ValueError, match=r"have 50 chapters\. Received: 1\. Pass"):
        prepare.read_splits(tmp_path)
    (tmp_path / "sensesensibility.txt").write_bytes(b"CHAPTER 1\n\n\xa320")
    with pytest.raises(ValueError, match=r"the byte 0xa3 at offset 11\. Pass"):
        prepare.read_splits(tmp_path)


@pytest.mark.parametrize("damage", ["absent", "no info", "no record", "cut record"])
def test_damaged_novels_say_what_to_do(lm_text, monkeypatch, tmp_path, damage):
    austen = tmp_path / "1.0.0"
    if damage != "absent":
        shutil.copytree(lm_text.AUSTEN, austen)
        record = next(austen.glob("*valid*"))
    if damage == "no info":
        (austen / "dataset_info.json").unlink()
    elif damage == "no record":
        record.unlink()
    elif damage == "cut record":
        record.write_bytes(record.read_bytes()[:10_000])
    monkeypatch.setattr(lm_text, "AUSTEN", austen)
    with pytest.raises(SystemExit) as error:
        lm_text.read_austen()
    assert f"Received: {austen}, which fails with" in str(error.value)
    assert "Restore that folder with git checkout" in str(error.value)


@pytest.mark.parametrize("layout", ["{}.txt", "ptb.{}.txt", "wiki.{}.tokens"])
def test_own_text_is_read_in_each_layout(lm_text, folder, layout):
    where = folder(
        layout, train=" a <unk> b \n \n c é\n".encode(), valid=b"\xef\xbb\xbfa"
    )
    (where / "README.txt").write_text("no split")
    words = lm_text.read_folder(where)
    assert words == {
        "train": ["a", "<unk>", "b", "<eos>", "<eos>", "c", "é", "<eos>"],
        "valid": ["a", "<eos>"],
        "test": ["a", "c", "<eos>"],
    }


def fails(function, *arguments):
    with pytest.raises(SystemExit) as error:
        function(*arguments)
    return str(error.value)


def test_folders_without_the_splits_are_refused(lm_text, folder, tmp_path):
    rule = "--data must be a folder of train.txt, valid.txt and test.txt. Received: "
    missing = tmp_path / "nowhere"
    said = fails(lm_text.read_folder, missing)
    assert said.startswith(f"{rule}{missing}, which does not exist. Give another one")
    said = fails(lm_text.read_folder, __file__)
    assert said.startswith(f"{rule}{__file__}, a file. Give another one")
    said = fails(lm_text.read_folder, tmp_path)
    assert said.startswith(f"{rule}{tmp_path}, with none of them. It may be ptb.train")
    folder(valid=None, test=None)
    said = fails(lm_text.read_folder, tmp_path)
    assert said.startswith(f"{rule}{tmp_path}, without valid.txt and test.txt. Put")
    folder("wiki.{}.tokens")
    said = fails(lm_text.read_folder, tmp_path)
    assert "with train.txt and wiki.train.tokens. " in said
    assert "files of one kind alone" in said
    # Only what is there is named.
    (tmp_path / "train.txt").unlink()
    (tmp_path / "test.txt").write_text("notes")
    said = fails(lm_text.read_folder, tmp_path)
    assert "with test.txt and wiki.train.tokens. " in said


def test_files_without_words_are_refused(lm_text, folder):
    for content in (b"", b" \n\n"):
        where = folder(test=content)
        said = fails(lm_text.read_folder, where)
        assert said == (
            f"--data must hold text in each file. Received: {where / 'test.txt'}, of "
            f"{len(content)} bytes and no word. Fill it."
        )


def test_files_of_other_encodings_are_refused(lm_text, folder):
    where = folder(valid="abc é".encode("latin1"))
    said = fails(lm_text.read_folder, where)
    assert "must hold text in UTF-8" in said
    assert f"{where / 'valid.txt'}, with the byte 0xe9 at offset 4. Convert" in said
    # Something compressed, as downloads are.
    where = folder(train=zlib.compress(b"a b c\n"))
    assert "with the byte 0x9c at offset 1. " in fails(lm_text.read_folder, where)
    # In UTF-16 the words would be others, each letter with a zero beside it.
    where = folder(train="a b c".encode("utf-16-le"))
    assert "with the byte 0x00 at offset 1. " in fails(lm_text.read_folder, where)


def test_a_vocabulary_is_ordered_by_frequency_and_cut(lm_text):
    words = ["b", "a", "b", "<eos>", "c", "a", "b", "<eos>", "d"]
    make = lm_text.make_vocabulary
    assert make(words, 1) == ["b", "a", "<eos>", "c", "d", "<unk>"]
    assert make(words, 2) == ["b", "a", "<eos>", "<unk>"]
    # <eos> stays, and a text that has <unk> keeps all that it has.
    assert make(["a", "b", "a", "b", "<eos>"], 2) == ["a", "b", "<eos>", "<unk>"]
    assert make([*words, "<unk>"], 2) == ["b", "a", "<eos>", "c", "d", "<unk>"]
    numbers = lm_text.encode(["d", "a", "e", "<eos>"], make(words, 2))
    assert numbers.tolist() == [3, 1, 3, 2]
    assert numbers.dtype == "int32"


@pytest.mark.parametrize(
    ("text", "min_count", "received"),
    [
        ("a a <eos>", 1, "1 words, of which 1 seen at all. "),
        ("<unk> a <eos>", 9, "1 words, of which 1 seen at all. "),
        ("a b a b b <eos>", 3, "2 words, of which 1 seen 3 times or more often. "),
        ("<eos> <eos>", 1, "0 words, of which 0 seen at all. "),
    ],
)
def test_a_vocabulary_of_one_word_is_refused(lm_text, text, min_count, received):
    said = fails(lm_text.make_vocabulary, text.split(), min_count)
    assert "must have at least two words" in said
    assert f"Received: {received}Give another text" in said


def test_streams_are_contiguous(lm_text):
    streams = lm_text.batchify(np.arange(23), 3, 4, "valid")
    assert streams.tolist() == np.arange(21).reshape(3, 7).tolist()


def test_a_text_smaller_than_one_batch_of_windows_is_refused(lm_text):
    assert lm_text.batchify(np.arange(15), 3, 4, "valid").shape == (3, 5)
    said = fails(lm_text.batchify, np.arange(14), 3, 4, "valid")
    assert said == (
        "The valid text must fill one batch of windows, --batch x (--window + 1) = 3 x "
        "5 = 15 words. Received: 14 words. Give a larger text, or a smaller --batch or "
        "--window."
    )


@pytest.mark.parametrize("window", [1, 3, 5, 9, 40])
def test_windows_cover_a_text_once_in_order(lm_text, window):
    streams = np.arange(2 * 21, dtype="int32").reshape(2, 21)
    data = lm_text.windows(streams, window)
    batches = list(data.as_numpy_iterator())
    assert len(batches) == len(data) == -(-20 // window)
    for part, expected in enumerate((streams[:, :-1], streams[:, 1:])):
        joined = np.concatenate([batch[part] for batch in batches], axis=1)
        np.testing.assert_array_equal(joined, expected)


@pytest.mark.parametrize("length", [4, 9, 20])
def test_training_windows_begin_at_another_offset_each_epoch(lm_text, length):
    window = 3
    streams = np.arange(2 * length, dtype="int32").reshape(2, length)
    data = lm_text.windows(streams, window, np.random.default_rng(0))
    firsts = set()
    for _ in range(10):
        batches = list(data.as_numpy_iterator())
        assert len(batches) == len(data)
        x, y = (np.concatenate(part, axis=1) for part in zip(*batches, strict=True))
        assert {batch[0].shape for batch in batches} == {(2, window)}
        first = int(x[0, 0])
        np.testing.assert_array_equal(x, streams[:, first : first + x.shape[1]])
        np.testing.assert_array_equal(y, x + 1)
        # No word could be had more.
        assert length - 1 - first - x.shape[1] < window + 2
        firsts.add(first)
    # With this seed 10 draws are enough for three offsets.
    assert firsts == set(range(min(window, length - window)))
