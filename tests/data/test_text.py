import os
from pathlib import Path

import pytest
import torch

from hyperprune.data.text import SPLITS, Corpus, load_corpus, unigram_perplexity
from hyperprune.errors import InputError

published = pytest.mark.skipif(
    not (Path(os.environ.get("HYPERPRUNE_DATA", "")) / "ptb" / "ptb.train.txt").is_file(),
    reason="needs the PTB files; set HYPERPRUNE_DATA to the folder that holds ptb/",
)


def words(corpus: Corpus, split: str) -> str:
    return " ".join(corpus.vocabulary.decode(corpus.split(split).tolist()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.txt").write_text(" the cat sat \n\n the dog sat \n", encoding="utf-8")
    (tmp_path / "valid.txt").write_text("the bird sat\n", encoding="utf-8")
    (tmp_path / "test.txt").write_text("the the bird", encoding="utf-8")
    return tmp_path


def test_every_line_ends_in_eos_and_unseen_words_are_unknown(folder: Path) -> None:
    corpus = load_corpus(f"text:{folder}")
    assert words(corpus, "train") == "the cat sat <eos> <eos> the dog sat <eos>"
    assert words(corpus, "valid") == "the <unk> sat <eos>"
    assert words(corpus, "test") == "the the <unk> <eos>"
    assert all(corpus.split(split).dtype == torch.int64 for split in SPLITS)


def test_the_vocabulary_comes_from_the_training_split_only(folder: Path) -> None:
    assert set(load_corpus(f"text:{folder}").vocabulary.words) == {
        "the",
        "cat",
        "sat",
        "dog",
        "<eos>",
        "<unk>",
    }


def test_a_file_is_split_by_position_without_losing_a_word(tmp_path: Path) -> None:
    file = tmp_path / "book.txt"
    file.write_text("\n".join(f"w{number} w{number}" for number in range(41)), encoding="utf-8")
    corpus = load_corpus(f"text:{file}")
    lengths = [len(corpus.split(split)) for split in SPLITS]
    assert lengths == [98, 12, 13]  # of 41 · 3 = 123 tokens: bounds at 98 and 110
    assert words(corpus, "train").startswith("w0 w0 <eos> w1")
    assert words(corpus, "train").endswith("<eos> w32 w32")
    assert words(corpus, "valid").startswith("<eos> <unk> <unk> <eos>")
    assert words(corpus, "test").startswith("<eos> <unk> <unk> <eos>")


def test_separators_other_than_newline_do_not_end_a_line(tmp_path: Path) -> None:
    file = tmp_path / "odd.txt"
    file.write_bytes("a\u2028b\x0bc\r\nd e f g h i j\n".encode())
    corpus = load_corpus(f"text:{file}")
    tokens = [word for split in SPLITS for word in corpus.split(split).tolist()]
    assert len(tokens) == 10 + 2


def test_a_byte_order_mark_is_no_word(folder: Path) -> None:
    (folder / "train.txt").write_bytes(b"\xef\xbb\xbfthe cat\n")
    assert words(load_corpus(f"text:{folder}"), "train") == "the cat <eos>"


def test_limits_cut_streams_after_the_vocabulary_was_built(folder: Path) -> None:
    corpus = load_corpus(f"text:{folder}", max_tokens={"train": 2, "test": 1})
    assert words(corpus, "train") == "the cat"
    assert [len(corpus.valid), len(corpus.test)] == [4, 1]
    assert "dog" in corpus.vocabulary


def test_a_checksum_tells_data_apart_and_recognises_the_same(folder: Path) -> None:
    first = load_corpus(f"text:{folder}").checksum()
    assert load_corpus(f"text:{folder}").checksum() == first
    assert load_corpus(f"text:{folder}", max_tokens={"test": 2}).checksum() != first
    (folder / "train.txt").write_text(" the CAT sat \n\n the dog sat \n", encoding="utf-8")
    assert load_corpus(f"text:{folder}").checksum() != first  # same indices, another word


def test_an_undecodable_file_is_named_with_the_offset_of_its_first_bad_byte(folder: Path) -> None:
    (folder / "valid.txt").write_bytes(b"caf\xc3\xa9 caf\xe9 \xff")
    with pytest.raises(InputError, match=r"valid\.txt has the byte 0xe9 at offset 9; convert it"):
        load_corpus(f"text:{folder}")


@pytest.mark.parametrize("content", ["", " \n\n"])
def test_an_empty_file_is_refused(folder: Path, content: str) -> None:
    (folder / "train.txt").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"at least one word, .*train\.txt is empty; give another file"):
        load_corpus(f"text:{folder}")


def test_a_text_of_fewer_than_ten_words_cannot_be_split(tmp_path: Path) -> None:
    file = tmp_path / "short.txt"
    file.write_text("one two three", encoding="utf-8")
    with pytest.raises(
        InputError, match=r"at least 10 words to be split, .*short\.txt holds 4; use a longer"
    ):
        load_corpus(f"text:{file}")


def test_missing_files_of_a_folder_are_named(folder: Path) -> None:
    (folder / "valid.txt").unlink()
    with pytest.raises(InputError, match=r"lacks valid\.txt; add them"):
        load_corpus(f"text:{folder}")
    with pytest.raises(InputError, match=r"must be readable, got .*nowhere \(No such file or directory\)"):
        load_corpus(f"text:{folder / 'nowhere'}")


def test_unknown_corpora_splits_and_limits_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="unknown corpus 'pbt'; did you mean 'ptb'"):
        load_corpus("pbt")
    with pytest.raises(InputError, match="unknown split in max_tokens 'training'"):
        load_corpus(f"text:{folder}", max_tokens={"training": 5})
    with pytest.raises(InputError, match="max_tokens of 'valid' must be at least 1, got 0"):
        load_corpus(f"text:{folder}", max_tokens={"valid": 0})
    with pytest.raises(InputError, match="unknown split 'dev'"):
        load_corpus(f"text:{folder}").split("dev")


def test_the_embedded_corpus_loads_the_same_each_time_and_honours_the_size() -> None:
    corpus = load_corpus("pydoc", vocabulary_size=1000)
    assert len(corpus.vocabulary) == 1000
    assert corpus.checksum() == load_corpus("pydoc", vocabulary_size=1000).checksum()
    assert corpus.unigram_perplexity() == unigram_perplexity(corpus.train, corpus.valid, 1000)


@published
def test_ptb_has_its_published_sizes() -> None:
    corpus = load_corpus("ptb", download=False)
    assert len(corpus.vocabulary) == 10_000
    assert [len(corpus.split(split)) for split in SPLITS] == [929_589, 73_760, 82_430]
    assert not (corpus.valid >= 10_000).any()


@published
def test_the_unigram_perplexity_of_cut_ptb_is_the_known_one() -> None:
    limits = {"train": 186_000, "valid": 40_000}
    cut = load_corpus("ptb", vocabulary_size=2000, max_tokens=limits, download=False)
    whole = load_corpus("ptb", vocabulary_size=2000, max_tokens={"valid": 40_000}, download=False)
    assert whole.vocabulary == cut.vocabulary
    # Frequencies of the whole training split give the known 185, those of the cut one a little more.
    assert whole.unigram_perplexity() == pytest.approx(185.5, abs=0.1)
    assert cut.unigram_perplexity() == pytest.approx(188.1, abs=0.1)
