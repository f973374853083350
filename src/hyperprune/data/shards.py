"""A corpus too large to hold: its training text stays in many files and is read block by block.

| name | train | valid | test |
|---|---|---|---|
| `one-billion-words` | 99 files of shuffled sentences | held-out files, the first apart | that one |

One pass over the training files counts their words, once for each state of the files; the result is kept in
the user's cache. It needs memory for the distinct words. Training needs memory for one block: the files come
in a new order in each pass, each cut into blocks, each block into columns and windows. Every line ends in
`<eos>`. Sentences follow each other at random in the files already, so none are shuffled.

References:
    Chelba et al. (2013), One billion word benchmark. Of its held-out files, the first is the usual test set.

Axes: V words, T time, B batch, N tokens.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import torch
from torch import Tensor

from hyperprune.data.batches import bptt_windows, contiguous_batches, perplexity_of_counts
from hyperprune.data.sources import DATASETS
from hyperprune.data.store import cache_folder, locate
from hyperprune.data.vocabulary import END_OF_LINE, Vocabulary, check_size
from hyperprune.errors import InputError, unknown_name
from hyperprune.files import write_atomically
from hyperprune.rng import generator

BLOCK_TOKENS = 1 << 20
HELDOUT = ("valid", "test")
_INDEX_FORMAT = 1


@dataclass(frozen=True)
class _Index:
    """What one pass over the training files found.

    Args:
        num_tokens: of each file, line ends included.
        words: the vocabulary, most frequent first.
        counts: (V,) how often each of them occurs, `<unk>` for all that are not listed.
        sha256: of names and content of the files.
    """

    num_tokens: tuple[int, ...]
    words: tuple[str, ...]
    counts: tuple[int, ...]
    sha256: str


@dataclass(frozen=True, eq=False)
class StreamedCorpus:
    """Training text in files, and two held-out splits as (N,) int64 indices.

    Args:
        name: as given to `load_shards`.
        files: the training files, in order of name.
        num_tokens: of each of them.
        counts: (V,) occurrences of each word in them.
        sha256: of their content.
        block_tokens: how many tokens are in memory at a time.
    """

    name: str
    vocabulary: Vocabulary
    files: Sequence[Path]
    num_tokens: Sequence[int]
    counts: Tensor
    sha256: str
    valid: Tensor
    test: Tensor
    block_tokens: int = BLOCK_TOKENS

    def split(self, name: str) -> Tensor:
        """The stream of "valid" or "test"; another name is an `InputError`."""
        if name not in HELDOUT:
            raise unknown_name("held-out split", name, HELDOUT)
        return getattr(self, name)

    def unigram_perplexity(self, split: str = "valid") -> float:
        """What the word frequencies of the training files alone reach on a held-out split."""
        return perplexity_of_counts(self.counts, self.split(split))

    def checksum(self) -> str:
        """SHA-256 of the training files, the vocabulary and the held-out streams."""
        digest = hashlib.sha256(f"{self.sha256}\x1f{self.block_tokens}\x1f".encode())
        digest.update("\n".join(self.vocabulary.words).encode())
        for stream in (self.valid, self.test):
            digest.update(f"\x1f{len(stream)}\x1f".encode())
            digest.update(stream.numpy().astype("<i8").tobytes())
        return digest.hexdigest()

    def num_windows(self, batch_size: int, bptt: int) -> int:
        """Windows of one pass over the training files.

        Raises:
            InputError: no file gives each column two tokens.
        """
        windows = sum(self._windows_of(number, batch_size, bptt) for number in range(len(self.files)))
        if windows == 0:
            raise InputError(
                f"a training file must give each of the {batch_size} columns of a batch at least 2 tokens, "
                f"the largest one of {self.name!r} has {max(self.num_tokens)}; use a smaller batch size"
            )
        return windows

    def train_windows(
        self, batch_size: int, bptt: int, *, seed: int, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(inputs, targets), each (t, B), without end: pass follows pass, each in an order of its own.

        The sequence depends on the files, the arguments and nothing else; `start` leaves its first windows
        out, and files that hold only such are not read. A block's last incomplete row is dropped.

        Args:
            batch_size: columns B.
            bptt: steps of a window, at most.
            seed: of the order of the files.
            start: windows to leave out.
        """
        per_pass = self.num_windows(batch_size, bptt)
        skip = start % per_pass
        for number in count(start // per_pass):
            random = generator(seed, "order of the files", number)
            for file in torch.randperm(len(self.files), generator=random).tolist():
                windows = self._windows_of(file, batch_size, bptt)
                if skip >= windows:
                    skip -= windows
                    continue
                for block in self._blocks(file):
                    windows = _windows_in(len(block), batch_size, bptt)
                    if skip < windows:
                        columns = contiguous_batches(block, batch_size)
                        yield from islice(bptt_windows(columns, bptt), skip, None)
                    skip = max(0, skip - windows)

    def _blocks(self, file: int) -> Iterator[Tensor]:
        tokens = _tokens_of(self.files[file])
        while len(block := self.vocabulary.encode(islice(tokens, self.block_tokens))):
            yield block

    def _windows_of(self, file: int, batch_size: int, bptt: int) -> int:
        whole, rest = divmod(self.num_tokens[file], self.block_tokens)
        return whole * _windows_in(self.block_tokens, batch_size, bptt) + _windows_in(rest, batch_size, bptt)


def is_streamed(name: str) -> bool:
    """Whether `load_shards` is what opens the corpus of that name."""
    return name in DATASETS and DATASETS[name].kind == "shards"


def load_shards(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    vocabulary_size: int | None = None,
    max_tokens: Mapping[str, int] | None = None,
    download: bool = True,
    block_tokens: int = BLOCK_TOKENS,
) -> StreamedCorpus:
    """Open a corpus of many files; its vocabulary comes from all of its training files and nothing else.

    Args:
        name: `one-billion-words`.
        data_dir: first folder to look for it in; then `$HYPERPRUNE_DATA`, the user's cache.
        vocabulary_size: most frequent words kept, `<unk>` among them, at least 2; None keeps all.
        max_tokens: of "valid" and "test", how many of their first tokens to keep.
        download: whether it may be fetched if it is nowhere.
        block_tokens: how many tokens are in memory at a time.

    Raises:
        InputError: an unknown name or split, a vocabulary below 2, a folder that is missing or lacks files,
            a file that is not UTF-8.
    """
    if not is_streamed(name):
        raise unknown_name("streamed corpus", name, filter(is_streamed, DATASETS))
    check_size(vocabulary_size)
    limits = dict(max_tokens or {})
    for split, limit in limits.items():
        if split not in HELDOUT:
            raise unknown_name("held-out split in max_tokens", split, HELDOUT)
        if limit < 1:
            raise InputError(f"max_tokens of {split!r} must be at least 1, got {limit}; leave it out for all")
    folders = locate(name, data_dir, download=download)
    train, heldout = _files_in(folders["training"], least=1), _files_in(folders["heldout"], least=2)
    index = _index_of(train, vocabulary_size)
    vocabulary = Vocabulary(index.words)

    def read(split: str, files: Sequence[Path]) -> Tensor:
        tokens = (token for file in files for token in _tokens_of(file))
        return vocabulary.encode(islice(tokens, limits.get(split)))

    return StreamedCorpus(
        name=name,
        vocabulary=vocabulary,
        files=train,
        num_tokens=index.num_tokens,
        counts=torch.tensor(index.counts),
        sha256=index.sha256,
        valid=read("valid", heldout[1:]),
        test=read("test", heldout[:1]),
        block_tokens=block_tokens,
    )


def _windows_in(num_tokens: int, batch_size: int, bptt: int) -> int:
    """Windows of a block: its rows but the first are targets; one of fewer than two rows has none."""
    return max(0, -(-(num_tokens // batch_size - 1) // bptt))


def _files_in(folder: Path, *, least: int) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    if len(files) < least:
        raise InputError(
            f"{folder} must hold at least {least} text files, found {len(files)}; unpack the archive again"
        )
    return files


def _lines_of(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise InputError(f"a text file must be readable, got {path} ({error.strerror})") from error


def _words_of(line: bytes, path: Path) -> list[str]:
    try:
        return line.decode("utf-8").split()
    except UnicodeDecodeError as error:
        raise InputError(
            f"a text file must be UTF-8, {path} has the byte 0x{line[error.start]:02x} in {line[:40]!r}; "
            "fetch it again"
        ) from error


def _tokens_of(path: Path) -> Iterator[str]:
    for line in _lines_of(path):
        yield from _words_of(line, path)
        yield END_OF_LINE


def _index_of(files: Sequence[Path], vocabulary_size: int | None) -> _Index:
    """The index of the training files, from the cache where they have not changed since it was made."""
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = json.dumps([_INDEX_FORMAT, vocabulary_size, str(files[0].parent.absolute()), stats])
    kept = cache_folder() / "indices" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):  # not there, or not whole: made again
        held = json.loads(kept.read_text(encoding="utf-8"))
        return _Index(tuple(held["num_tokens"]), tuple(held["words"]), tuple(held["counts"]), held["sha256"])
    index = _count(files, vocabulary_size)
    with suppress(OSError):  # a cache that cannot be written costs a pass each time, and nothing else
        write_atomically(kept, json.dumps(vars(index)).encode())
    return index


def _count(files: Sequence[Path], vocabulary_size: int | None) -> _Index:
    from rich.console import Console
    from rich.progress import track

    counter: Counter[str] = Counter()
    digest, num_tokens = hashlib.sha256(), []
    for file in track(files, "counting words, once", console=Console(stderr=True), transient=True):
        before = counter.total()
        digest.update(f"\x1f{file.name}\x1f".encode())
        for line in _lines_of(file):
            digest.update(line)
            counter.update(_words_of(line, file))
            counter[END_OF_LINE] += 1
        num_tokens.append(counter.total() - before)
    vocabulary = Vocabulary.from_counts(counter, vocabulary_size)
    counts = [counter[word] for word in vocabulary.words]
    counts[vocabulary.unknown] += counter.total() - sum(counts)
    return _Index(tuple(num_tokens), vocabulary.words, tuple(counts), digest.hexdigest())
