"""The `pydoc` corpus: the English of `pydoc_data.topics`, which every CPython carries.

The topics are sections of the language reference. Some are excerpts of others (`while` is a part of
`compound`), so whole topics are dealt out, those that share a paragraph always together, and a repeated
paragraph counts once: no held-out sentence was ever trained on. The text differs a little between versions
of Python, and with it the numbers; `Corpus.checksum` tells which text a run saw.
"""

import re
from collections.abc import Mapping

from hyperprune.data.sources import SPLITS

_SHARE = {"train": 0.8, "valid": 0.1, "test": 0.1}
# A group of topics above this share of the text goes to train: as most of a held-out split it would make
# that split one subject (string formatting, say) with its own words.
_LARGEST_HELDOUT_GROUP = 0.04
# Shorter paragraphs ("Example:", "See also:") recur everywhere and tie nothing together.
_SHARED_PARAGRAPH_WORDS = 6

_PARAGRAPH_BREAK = re.compile(r"\n\s*\n")
_RULE = re.compile(r"^[ \t]*([-=*~^\"'#+.|_])\1{3,}[ \t+|=-]*$", re.MULTILINE)
_TABLE_FRAME = re.compile(r"^[ \t]*[+|][-=+| \t]*$|\|", re.MULTILINE)
_EMPHASIS = re.compile(r"[*`]+(?=\w)|(?<=[\w.:!?])[*`]+(?=\W|$)", re.ASCII)
_FOOTNOTE = re.compile(r"\[(?:\d+|#\w*)\]")
_TOKEN = re.compile(
    r"[a-z]+\d*(?:'(?:s|t|d|m|re|ve|ll)\b)?"  # words, with the English endings that follow an apostrophe
    r"|\d+(?:\.\d+)*"
    r"|\.\.\.|->|>>>|\*\*=|//=|<<=|>>=|[=!<>:*/+\-|&^%@]=|\*\*|//|<<|>>"
    r"|\w|[^\w\s]"
)


def words_of(text: str) -> list[str]:
    """Lower-case words, numbers and punctuation marks of English text with code in it.

    Underscores part words, so `__init__` and `init` are one word and identifiers stay few.
    """
    text = text.lower().replace("’", "'").replace("“", '"').replace("”", '"').replace("_", " ")
    return _TOKEN.findall(text)


def paragraphs_of(topic: str) -> list[str]:
    """The paragraphs of one topic on one line each, without rules, table frames and emphasis marks."""
    text = _TABLE_FRAME.sub("", _RULE.sub("", topic))
    text = _EMPHASIS.sub("", _FOOTNOTE.sub("", text))
    paragraphs = (" ".join(paragraph.split()) for paragraph in _PARAGRAPH_BREAK.split(text))
    return [paragraph for paragraph in paragraphs if paragraph]


def assign_topics(topics: Mapping[str, str]) -> dict[str, str]:
    """The split of each topic: groups that share text are dealt, largest first, to the neediest split.

    Deterministic: depends on the texts alone. A split's need is the share of its quota still missing.
    """
    paragraphs = {name: paragraphs_of(text) for name, text in sorted(topics.items())}
    sizes = {
        group: sum(len(words_of(text)) for text in {p for name in group for p in paragraphs[name]})
        for group in _groups_sharing_text(paragraphs)
    }
    total = sum(sizes.values())
    filled = dict.fromkeys(SPLITS, 0)
    assigned: dict[str, str] = {}
    for group, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        needs = {split: 1 - filled[split] / (_SHARE[split] * total) for split in SPLITS}
        split = "train" if size > _LARGEST_HELDOUT_GROUP * total else max(SPLITS, key=needs.__getitem__)
        filled[split] += size
        assigned.update(dict.fromkeys(group, split))
    return assigned


def embedded_paragraphs(topics: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """The paragraphs of each split, topics in alphabetical order, each distinct paragraph once.

    Args:
        topics: text by topic; None reads `pydoc_data.topics`.
    """
    if topics is None:
        topics = _topics()
    split_of = assign_topics(topics)
    result: dict[str, list[str]] = {split: [] for split in SPLITS}
    seen: set[str] = set()
    for name in sorted(topics):
        for paragraph in paragraphs_of(topics[name]):
            if paragraph not in seen:
                seen.add(paragraph)
                result[split_of[name]].append(paragraph)
    return result


def _topics() -> dict[str, str]:
    from pydoc_data.topics import topics

    return topics


def _groups_sharing_text(paragraphs: Mapping[str, list[str]]) -> list[tuple[str, ...]]:
    leader = {name: name for name in paragraphs}

    def lead(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    owner: dict[str, str] = {}
    for name, texts in paragraphs.items():
        for text in texts:
            if len(text.split()) >= _SHARED_PARAGRAPH_WORDS:
                leader[lead(name)] = lead(owner.setdefault(text, name))
    groups: dict[str, list[str]] = {}
    for name in paragraphs:
        groups.setdefault(lead(name), []).append(name)
    return [tuple(names) for names in groups.values()]
