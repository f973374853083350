"""The streamed corpus: order, blocks, resumption, the index, and memory."""

import math
import tracemalloc
from collections import Counter
from itertools import chain, groupby, islice

import pytest
import torch

from hyperprune.data import shards
from hyperprune.data.batches import bptt_windows, contiguous_batches
from hyperprune.data.shards import load_shards
from hyperprune.errors import InputError
from hyperprune.tasks.language import LanguageTask
from hyperprune.tasks.registry import load_task

TRAIN = "one-billion-words/training-monolingual.tokenized.shuffled"
HELDOUT = "one-billion-words/heldout-monolingual.tokenized.shuffled"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def _make(root, *, num_files=4, lines=60, words_per_line=9):
    """Lines of words that tell their file and place: `f2 w5 …`; common words, as a real vocabulary has."""
    for folder, files, size in ((TRAIN, num_files, lines), (HELDOUT, 3, 12)):
        (root / folder).mkdir(parents=True)
        for number in range(files):
            text = "".join(
                " ".join([f"f{number}", *(f"w{(line * 7 + place) % 40}" for place in range(words_per_line))])
                + "\n"
                for line in range(size - number)  # files of different lengths
            )
            (root / folder / f"news.en-{number:05d}-of-00100").write_text(text, encoding="utf-8")
    (root / TRAIN / ".hidden").write_bytes(b"\xff")
    return root


def _same(one, two):
    return len(one) == len(two) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, two, strict=True)
    )


def test_a_pass_reads_every_file_once_block_by_block(tmp_path):
    corpus = load_shards("one-billion-words", data_dir=_make(tmp_path), block_tokens=200)
    per_pass = corpus.num_windows(3, 10)
    windows = list(islice(corpus.train_windows(3, 10, seed=0), per_pass))
    expected = {}
    for number, path in enumerate(corpus.files):
        stream = corpus.vocabulary.encode(
            token for line in path.read_text().splitlines() for token in [*line.split(), "<eos>"]
        )
        assert len(stream) == corpus.num_tokens[number] == (60 - number) * 11
        expected[number] = [
            window
            for block in stream.split(200)
            if len(block) >= 6
            for window in bptt_windows(contiguous_batches(block, 3), 10)
        ]
    assert per_pass == sum(map(len, expected.values()))
    for first_pass in range(2):
        random = shards.generator(0, "order of the files", first_pass)
        order = torch.randperm(4, generator=random).tolist()
        wanted = [window for number in order for window in expected[number]]
        got = list(
            islice(corpus.train_windows(3, 10, seed=0), first_pass * per_pass, (first_pass + 1) * per_pass)
        )
        assert _same(got, wanted)
    assert _same(windows, list(islice(corpus.train_windows(3, 10, seed=0), per_pass)))


def test_the_order_depends_on_seed_and_pass(tmp_path):
    corpus = load_shards("one-billion-words", data_dir=_make(tmp_path, num_files=6))
    per_pass = corpus.num_windows(3, 10)

    def files_in_order(seed: int, number: int) -> list[int]:
        windows = islice(corpus.train_windows(3, 10, seed=seed, start=number * per_pass), per_pass)
        words = (corpus.vocabulary.decode(inputs.flatten().tolist()) for inputs, _ in windows)
        marks = [int(word[1:]) for window in words for word in window if word.startswith("f")]
        return [mark for mark, _ in groupby(marks)]

    orders = {tuple(files_in_order(seed, number)) for seed in range(2) for number in range(2)}
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len(orders) > 1


@pytest.mark.parametrize("block_tokens", [150, 1 << 20])
def test_any_place_can_be_taken_up_again(tmp_path, block_tokens):
    corpus = load_shards("one-billion-words", data_dir=_make(tmp_path), block_tokens=block_tokens)
    per_pass = corpus.num_windows(4, 7)
    whole = list(islice(corpus.train_windows(4, 7, seed=3), 2 * per_pass + 10))
    for start in range(0, 2 * per_pass + 5, 3):
        assert _same(
            list(islice(corpus.train_windows(4, 7, seed=3, start=start), 5)), whole[start : start + 5]
        )


def test_files_before_the_place_are_not_read(tmp_path, monkeypatch):
    corpus = load_shards("one-billion-words", data_dir=_make(tmp_path))
    opened = []
    read = shards._tokens_of
    monkeypatch.setattr(shards, "_tokens_of", lambda path: opened.append(path) or read(path))
    next(corpus.train_windows(3, 10, seed=0, start=corpus.num_windows(3, 10) - 1))
    assert len(opened) == 1


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    peaks = []
    for name, num_files in (("small", 2), ("large", 16)):
        (tmp_path / name).mkdir()
        root = _make(tmp_path / name, num_files=num_files, lines=400)
        tracemalloc.start()
        corpus = load_shards("one-billion-words", data_dir=root, block_tokens=1000)
        number = sum(1 for _ in islice(corpus.train_windows(4, 10, seed=0), corpus.num_windows(4, 10)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert number > 30 * num_files
    # Eight times the text, 35,000 tokens more (280 kB as numbers, 2 MB as strings).
    assert peaks[1] < peaks[0] + 100_000


def test_words_are_counted_over_all_files_once(tmp_path, own_cache, monkeypatch):
    root = _make(tmp_path)
    corpus = load_shards("one-billion-words", data_dir=root, vocabulary_size=20)
    counts = Counter(
        token
        for path in corpus.files
        for line in path.read_text().splitlines()
        for token in [*line.split(), "<eos>"]
    )
    assert len(corpus.vocabulary) == 20
    known = {word: int(count) for word, count in zip(corpus.vocabulary.words, corpus.counts, strict=True)}
    assert known.pop("<unk>") == counts.total() - sum(counts[word] for word in known)
    assert known == {word: counts[word] for word in known}
    assert min(known.values()) >= max(count for word, count in counts.items() if word not in known)
    # A model that knows the frequencies alone scores the baseline.
    smoothed = (corpus.counts.double() + 1) / (corpus.counts.double() + 1).sum()
    assert corpus.unigram_perplexity() == pytest.approx(math.exp(-smoothed[corpus.valid].log().mean().item()))

    def never(*_):
        raise AssertionError("counted again")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "_count", never)
        again = load_shards("one-billion-words", data_dir=root, vocabulary_size=20)
        with pytest.raises(AssertionError, match="counted again"):
            load_shards("one-billion-words", data_dir=root, vocabulary_size=21)
    assert again.checksum() == corpus.checksum()
    changed = corpus.files[0]
    changed.write_text(changed.read_text().replace("w1 ", "w2 "))
    assert load_shards("one-billion-words", data_dir=root, vocabulary_size=20).checksum() != corpus.checksum()
    for kept in (own_cache / "indices").iterdir():
        kept.write_bytes(kept.read_bytes()[:-9])
    assert load_shards("one-billion-words", data_dir=root).num_tokens == corpus.num_tokens


def test_the_first_heldout_file_is_the_test_set_and_the_others_validate(tmp_path):
    corpus = load_shards("one-billion-words", data_dir=_make(tmp_path), max_tokens={"valid": 130})
    assert len(corpus.test) == 12 * 11
    assert len(corpus.valid) == 130  # of 11 · 11 and 10 · 11
    marks = [word for word in corpus.vocabulary.decode(corpus.valid.tolist()) if word.startswith("f")]
    assert set(marks) == {"f1", "f2"}


def test_an_epoch_goes_on_where_the_last_one_ended(tmp_path):
    settings = {
        "model": {"hidden_size": 8, "embedding_size": 6, "num_sampled": 5},
        "text": {
            "vocabulary_size": 30,
            "batch_size": 3,
            "bptt": 10,
            "train_tokens": 700,
            "valid_tokens": 12 * 11,
            "eval_batch_size": 10,
        },
    }
    task = load_task("one-billion-words", settings=settings, data_dir=_make(tmp_path))
    assert isinstance(task, LanguageTask)
    assert task.steps_per_epoch() == 23
    epochs = [list(task.batches("train", epoch)) for epoch in (1, 2, 3)]
    assert all(len(epoch) == 23 for epoch in epochs)
    corpus = task.corpus
    assert isinstance(corpus, shards.StreamedCorpus)
    assert _same(list(chain(*epochs)), list(islice(corpus.train_windows(3, 10, seed=0), 69)))
    assert task.recipe.optimizer == "adam"
    model = task.model(torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        outcome = task.loss(model.train(), epochs[0][0], None)
    assert 0 < outcome.loss.item() < 10


def test_the_tasks_own_sizes_are_the_papers():
    task = load_task("one-billion-words")
    assert isinstance(task, LanguageTask)
    assert task.text.vocabulary_size == 100_000
    assert (task.settings.hidden_size, task.settings.embedding_size) == (2000, 400)
    assert getattr(task.settings, "num_sampled", None) == 1000
    other = load_task("one-billion-words", settings={"model": {"preset": "mini"}})
    assert isinstance(other, LanguageTask)
    assert getattr(other.settings, "num_sampled", 0) is None


def test_bad_files_are_errors(tmp_path):
    root = _make(tmp_path)
    with pytest.raises(InputError, match=r"must give each of the 1000 columns .* has 660; use a smaller"):
        load_shards("one-billion-words", data_dir=root).num_windows(1000, 10)
    with pytest.raises(InputError, match="unknown streamed corpus 'ptb'"):
        load_shards("ptb", data_dir=root)
    with pytest.raises(InputError, match="vocabulary_size must be at least 2"):
        load_shards("one-billion-words", data_dir=tmp_path / "none", vocabulary_size=1, download=False)
    with pytest.raises(InputError, match="unknown held-out split in max_tokens 'train'"):
        load_shards("one-billion-words", data_dir=root, max_tokens={"train": 5})
    with pytest.raises(InputError, match="unknown held-out split 'train'"):
        load_shards("one-billion-words", data_dir=root).split("train")
    (root / TRAIN / "news.en-00002-of-00100").write_bytes(b"well \xff\n")
    with pytest.raises(InputError, match=r"must be UTF-8, .*00002-of-00100 has the byte 0xff"):
        load_shards("one-billion-words", data_dir=root)
    for file in (root / HELDOUT).iterdir():
        file.unlink()
    with pytest.raises(
        InputError, match="must hold at least 2 text files, found 0; unpack the archive again"
    ):
        load_shards("one-billion-words", data_dir=root)


def test_an_order_seed_means_nothing_to_a_text_in_memory():
    with pytest.raises(InputError, match="order_seed is for corpora that are streamed, got 1 for 'pydoc'"):
        load_task("pydoc", settings={"text": {"order_seed": 1}})
