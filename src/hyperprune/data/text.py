"""Text corpora as streams of word indices, with the vocabulary of their training split.

| name | text | tokens |
|---|---|---|
| `pydoc` | the English of `pydoc_data.topics`, split by whole topics | words and punctuation, lower case |
| `ptb`, `wikitext2`, `wikitext103` | the published, already tokenised files | parted by white space |
| `text:PATH` | a UTF-8 file, split 80/10/10 by position, or a folder of `{train,valid,test}.txt` | likewise |

Every line of a file, blank ones too, and every paragraph of `pydoc` ends in `<eos>`.

Axes: N tokens.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

from torch import Tensor

from hyperprune.data.batches import bptt_windows, contiguous_batches, num_windows, unigram_perplexity
from hyperprune.data.sources import DATASETS, SPLITS
from hyperprune.data.store import EMBEDDED, locate
from hyperprune.data.vocabulary import END_OF_LINE, UNKNOWN, Vocabulary
from hyperprune.errors import InputError, unknown_name

__all__ = [
    "END_OF_LINE",
    "SPLITS",
    "UNKNOWN",
    "Corpus",
    "Vocabulary",
    "bptt_windows",
    "contiguous_batches",
    "load_corpus",
    "num_windows",
    "unigram_perplexity",
]

_TEXT = "text:"
# Read again for each pass, so that no list of all words is ever held.
_Reader = Callable[[], Iterator[str]]


@dataclass(frozen=True, eq=False)
class Corpus:
    """Three splits of a text as (N,) int64 indices into the vocabulary of the first.

    Args:
        name: as given to `load_corpus`.
    """

    name: str
    vocabulary: Vocabulary
    train: Tensor
    valid: Tensor
    test: Tensor

    def split(self, name: str) -> Tensor:
        """The stream of "train", "valid" or "test".

        Raises:
            InputError: another name.
        """
        if name not in SPLITS:
            raise unknown_name("split", name, SPLITS)
        return getattr(self, name)

    def unigram_perplexity(self, split: str = "valid") -> float:
        """What the word frequencies of `train` alone reach on a split; see `unigram_perplexity`."""
        return unigram_perplexity(self.train, self.split(split), len(self.vocabulary))

    def checksum(self) -> str:
        """SHA-256 of words and streams: two runs saw the same data exactly if theirs agree."""
        digest = hashlib.sha256("\n".join(self.vocabulary.words).encode())
        for split in SPLITS:
            stream = self.split(split)
            digest.update(f"\x1f{len(stream)}\x1f".encode())
            digest.update(stream.numpy().astype("<i8").tobytes())
        return digest.hexdigest()


def load_corpus(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    vocabulary_size: int | None = None,
    max_tokens: Mapping[str, int] | None = None,
    download: bool = True,
) -> Corpus:
    """Read a corpus; the vocabulary comes from its training split, the whole of it, and from nothing else.

    Args:
        name: `pydoc`, `ptb`, `wikitext2`, `wikitext103` or `text:PATH`.
        data_dir: first folder to look for a named corpus in; then `$HYPERPRUNE_DATA`, the user's cache.
        vocabulary_size: most frequent words kept, `<unk>` among them, at least 2; None keeps all.
        max_tokens: for some or all splits, how many of their first tokens to keep, at least 1.
        download: whether a named corpus that is nowhere may be fetched.

    Raises:
        InputError: an unknown corpus or split, a value out of range, a file that is missing, empty or not
            UTF-8, or a text too short to be split; the message says what to do.
    """
    limits = _checked_limits(max_tokens)
    corpora = [known for known, dataset in DATASETS.items() if dataset.kind == "text"]
    if name == EMBEDDED:
        readers = _embedded_readers()
    elif name in corpora:
        readers = _file_readers(locate(name, data_dir, download=download))
    elif name.startswith(_TEXT):
        readers = _path_readers(Path(name.removeprefix(_TEXT)).expanduser())
    else:
        raise unknown_name("corpus", name, (EMBEDDED, *corpora, f"{_TEXT}PATH"))

    def tokens(split: str) -> Iterator[str]:
        return islice(readers[split](), limits.get(split))

    # From the whole training split, so that a shorter run has the words, and the sizes, of a full one.
    vocabulary = Vocabulary.from_tokens(readers["train"](), vocabulary_size)
    return Corpus(name, vocabulary, *(vocabulary.encode(tokens(split)) for split in SPLITS))


def _checked_limits(max_tokens: Mapping[str, int] | None) -> dict[str, int]:
    limits = dict(max_tokens or {})
    for split, limit in limits.items():
        if split not in SPLITS:
            raise unknown_name("split in max_tokens", split, SPLITS)
        if limit < 1:
            raise InputError(
                f"max_tokens of {split!r} must be at least 1, got {limit}; leave it out to keep all"
            )
    return limits


def _embedded_readers() -> dict[str, _Reader]:
    from hyperprune.data.embedded import embedded_paragraphs, words_of

    def reader(paragraphs: list[str]) -> _Reader:
        return lambda: _with_ends(words_of(paragraph) for paragraph in paragraphs)

    return {split: reader(paragraphs) for split, paragraphs in embedded_paragraphs().items()}


def _file_readers(files: Mapping[str, Path]) -> dict[str, _Reader]:
    def reader(text: str) -> _Reader:
        return lambda: _tokens_of(text)

    return {split: reader(_read(file)) for split, file in files.items()}


def _path_readers(path: Path) -> dict[str, _Reader]:
    if path.is_dir():
        files = {split: path / f"{split}.txt" for split in SPLITS}
        missing = [file.name for file in files.values() if not file.is_file()]
        if missing:
            raise InputError(
                f"a text folder must hold train.txt, valid.txt and test.txt, "
                f"{path} lacks {', '.join(missing)}; add them, or name one file and it will be split"
            )
        return _file_readers(files)
    text = _read(path)
    total = sum(1 for _ in _tokens_of(text))
    bounds = (0, total * 8 // 10, total * 9 // 10, total)
    if len(set(bounds)) < len(bounds):
        raise InputError(
            f"a text must hold at least 10 words to be split, {path} holds {total}; use a longer text"
        )

    def reader(start: int, stop: int) -> _Reader:
        return lambda: islice(_tokens_of(text), start, stop)

    return {split: reader(*pair) for split, pair in zip(SPLITS, pairwise(bounds), strict=True)}


def _read(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"a text file must be UTF-8, {path} has the byte 0x{error.object[error.start]:02x} at offset "
            f"{error.start}; convert it, for example with iconv -t UTF-8"
        ) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"a text file must be readable, got {path} ({reason}); check the path") from error
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise InputError(f"a text file must hold at least one word, {path} is empty; give another file")
    return text


def _tokens_of(text: str) -> Iterator[str]:
    return _with_ends(line.split() for line in _lines(text))


def _lines(text: str) -> Iterator[str]:
    # Not str.splitlines: it also breaks at separators that stand inside the lines of WikiText.
    start = 0
    while start < len(text):
        stop = text.find("\n", start)
        stop = len(text) if stop < 0 else stop
        yield text[start:stop]
        start = stop + 1


def _with_ends(lines: Iterable[list[str]]) -> Iterator[str]:
    for words in lines:
        yield from words
        yield END_OF_LINE
