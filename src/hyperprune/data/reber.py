"""Strings of the Reber grammar, valid ones and changed ones: a checker and a seeded generator.

    start -B-> 1        1 -T-> 2, -P-> 3        2 -S-> 2, -X-> 4        3 -T-> 3, -V-> 5
    4 -X-> 3, -S-> 6    5 -P-> 4, -V-> 6        6 -E-> end

An embedded Reber string is B, then T or P, a Reber string, that same T or P again, and E: the letter before
the end repeats the second one, however long the string between them.

References:
    Reber (1967), Implicit learning of artificial grammars.
    Cleeremans, Servan-Schreiber, McClelland (1989), Finite state automata and simple recurrent networks.
    Darji (2021), Investigating sparsity in recurrent neural networks (arXiv 2407.20601), called the thesis
    here, chapter 4: 25,000 strings, nearly all distinct, of 11 to 53 letters, half of them changed. Its
    changes are not described; those here are our own, by name in `CHANGES`.

Axes: N letters left, Q states, M strings drawn at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np

from hyperprune.data.strings import LabelledStrings
from hyperprune.errors import InputError, unknown_name
from hyperprune.rng import derive_seed

LETTERS = "BTPSXVE"
MAX_LENGTH = 2000  # beyond some 2,200 letters the chances of a walk are too small for float64
_INNER = "TPSXV"
_FOREIGN = "".join(chr(code) for code in range(ord("A"), ord("Z") + 1) if chr(code) not in LETTERS)
_DRAWS_PER_STRING = 2000  # after so many draws for each string asked for, drawing distinct ones is given up
_TRIES = 50  # at one change of one string, before the next string's turn
_FRUITLESS = 200  # strings in a row, at least, none of which could be changed, before that is given up

_REBER: dict[int, dict[str, int]] = {
    0: {"B": 1},
    1: {"T": 2, "P": 3},
    2: {"S": 2, "X": 4},
    3: {"T": 3, "V": 5},
    4: {"X": 3, "S": 6},
    5: {"P": 4, "V": 6},
    6: {"E": 7},
}


def _embedded() -> dict[int, dict[str, int]]:
    """The automaton with one copy of the Reber grammar for each of the letters to be remembered."""
    states: dict[int, dict[str, int]] = {0: {"B": 1}, 1: {"T": 2, "P": 10}}
    for letter, offset in (("T", 2), ("P", 10)):
        for state, moves in _REBER.items():
            states[offset + state] = {move: offset + after for move, after in moves.items()}
        states[offset + 7] = {letter: 18}
    return states | {18: {"E": 19}}


@dataclass(frozen=True)
class Grammar:
    """A finite automaton that reads a letter at each step; at most two letters may follow any state.

    Attributes:
        name: for messages.
        moves: by state, from 0, the next state after each letter that may come; the end has no moves.
    """

    name: str
    moves: Mapping[int, Mapping[str, int]]

    @property
    def end(self) -> int:
        return len(self.moves)

    def accepts(self, string: str) -> bool:
        """Whether `string` is valid."""
        state = 0
        for letter in string:
            after = self.moves.get(state, {}).get(letter)
            if after is None:
                return False
            state = after
        return state == self.end

    def num_strings(self, max_length: int) -> list[int]:
        """How many valid strings have exactly 0, 1, … max_length letters."""
        ways = [int(state == self.end) for state in range(self.end + 1)]
        counts = [ways[0]]
        for _ in range(max_length):
            ways = [
                sum(ways[after] for after in self.moves.get(state, {}).values()) for state in range(len(ways))
            ]
            counts.append(ways[0])
        return counts

    @cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Next state and letter code of both branches of each state, (Q, 2); the end stays where it is."""
        after_Q2 = np.full((self.end + 1, 2), self.end)
        letter_Q2 = np.zeros((self.end + 1, 2), dtype=np.uint8)
        for state, moves in self.moves.items():
            for branch in (0, 1):
                letter, after = list(moves.items())[min(branch, len(moves) - 1)]
                after_Q2[state, branch], letter_Q2[state, branch] = after, ord(letter)
        return after_Q2, letter_Q2

    def chances(self, max_length: int) -> np.ndarray:
        """(N + 1, Q): the chance that a walk with equally likely branches ends after exactly n letters.

        N is at most `MAX_LENGTH`.
        """
        after_Q2, _ = self._tables
        chance_NQ = np.zeros((max_length + 1, self.end + 1))
        chance_NQ[0, self.end] = 1.0
        for n in range(1, max_length + 1):
            chance_NQ[n] = chance_NQ[n - 1][after_Q2].mean(axis=1)
            chance_NQ[n, self.end] = 0.0
        return chance_NQ

    def walk(self, lengths_M: np.ndarray, random: np.random.Generator) -> list[str]:
        """One valid string of each length, as a walk with equally likely branches that has it would give."""
        after_Q2, letter_Q2 = self._tables
        longest = int(lengths_M.max())
        chance_NQ = self.chances(longest)
        state_M, left_M = np.zeros(len(lengths_M), dtype=np.int64), lengths_M.copy()
        letters_TM = np.zeros((longest, len(lengths_M)), dtype=np.uint8)
        for step in range(longest):
            chance_M2 = chance_NQ[np.maximum(left_M - 1, 0)[:, None], after_Q2[state_M]]
            branch_M = (random.random(len(state_M)) * chance_M2.sum(axis=1) >= chance_M2[:, 0]).astype(
                np.int64
            )
            letters_TM[step] = letter_Q2[state_M, branch_M]
            state_M, left_M = after_Q2[state_M, branch_M], left_M - 1
        rows = np.ascontiguousarray(letters_TM.T)
        return [row[:length].tobytes().decode() for row, length in zip(rows, lengths_M, strict=True)]


REBER = Grammar("Reber grammar", _REBER)
EMBEDDED_REBER = Grammar("embedded Reber grammar", _embedded())


def is_valid(string: str, *, embedded: bool = False) -> bool:
    """Whether `string` belongs to the Reber grammar, or to the embedded one."""
    return (EMBEDDED_REBER if embedded else REBER).accepts(string)


Change = Callable[[str, np.random.Generator], str]


def _pick(items: Sequence[str], random: np.random.Generator) -> str:
    return items[int(random.integers(len(items)))]


def _at(string: str, random: np.random.Generator, *, room: int = 1) -> int:
    """A place behind the first letter with `room` letters from there on before the last one."""
    return int(random.integers(1, len(string) - room))


def _replace(string: str, random: np.random.Generator) -> str:
    place = _at(string, random)
    return string[:place] + _pick(_INNER.replace(string[place], ""), random) + string[place + 1 :]


def _swap(string: str, random: np.random.Generator) -> str:
    place = _at(string, random, room=2)
    return string[:place] + string[place + 1] + string[place] + string[place + 2 :]


def _drop(string: str, random: np.random.Generator) -> str:
    place = _at(string, random)
    return string[:place] + string[place + 1 :]


def _insert(string: str, random: np.random.Generator) -> str:
    place = _at(string, random)
    return string[:place] + _pick(_INNER, random) + string[place:]


def _mapped(string: str, letters: list[str]) -> str:
    return string[0] + string[1:-1].translate(str.maketrans(_INNER, "".join(letters))) + string[-1]


def _relabel(string: str, random: np.random.Generator) -> str:
    return _mapped(string, random.permutation(list(_INNER)).tolist())


def _foreign(string: str, random: np.random.Generator) -> str:
    return _mapped(string, random.choice(list(_FOREIGN), len(_INNER), replace=False).tolist())


def _forget(string: str, random: np.random.Generator) -> str:
    return string[:-2] + {"T": "P", "P": "T"}[string[1]] + string[-1]


CHANGES: dict[str, Change] = {
    "replace": _replace,  # one letter between the first and the last becomes another of T P S X V
    "swap": _swap,  # two neighbours between the first and the last letter change places
    "drop": _drop,  # one letter between the first and the last is left out
    "insert": _insert,  # one of T P S X V is put in somewhere between the first and the last letter
    "relabel": _relabel,  # T P S X V are permuted throughout: another grammar of the same letters
    "foreign": _foreign,  # T P S X V become five other letters throughout: the same grammar in other letters
    "forget": _forget,  # embedded only: the letter before the end does not repeat the second one
}
"""What makes a false string of a valid one. A result that happens to be valid is drawn again."""


@dataclass(frozen=True, kw_only=True)
class ReberSettings:
    """How many strings, of which kind.

    Attributes:
        num_strings: in all, distinct unless `distinct` is False.
        embedded: strings of the embedded grammar.
        min_length, max_length: letters, both included, up to `MAX_LENGTH`. Lengths are those of a random walk
            with equally likely branches that ends within them; drawn without repetition this uses up the
            short strings, as in the thesis's data.
        lengths: "walk", or "uniform": every length that the grammar has is equally likely.
        valid_share: how many of the strings are valid, in [0, 1]; rounded to a whole number.
        changes: names of `CHANGES`, each equally likely; () means all that fit the grammar.
        distinct: no string comes twice.

    Raises:
        InputError: a value out of range, an unknown change, or fewer strings in the grammar than asked for.
    """

    num_strings: int = 25_000
    embedded: bool = False
    min_length: int = 11
    max_length: int = 53
    lengths: str = "walk"
    valid_share: float = 0.5
    changes: tuple[str, ...] = ()
    distinct: bool = True

    def __post_init__(self) -> None:
        if self.num_strings < 1:
            raise InputError(f"num_strings must be at least 1, got {self.num_strings}")
        if not 1 <= self.min_length <= self.max_length:
            raise InputError(
                f"lengths must go from 1 or more up to max_length, got {self.min_length} to {self.max_length}"
            )
        if self.max_length > MAX_LENGTH:
            raise InputError(
                f"max_length must be at most {MAX_LENGTH}, got {self.max_length}; longer strings are too "
                "rare among walks to be drawn"
            )
        if self.lengths not in ("walk", "uniform"):
            raise unknown_name("choice of lengths", self.lengths, ("walk", "uniform"))
        if not 0 <= self.valid_share <= 1:
            raise InputError(f"valid_share must lie in [0, 1], got {self.valid_share}; 0.5 is half")
        for name in self.changes:
            if name not in CHANGES:
                raise unknown_name("change", name, CHANGES)
        if "forget" in self.changes and not self.embedded:
            raise InputError("the change 'forget' is of the embedded grammar; leave it out or set embedded")
        if self.num_available == 0:
            raise InputError(
                f"the {self.grammar.name} has no string of {self.min_length} to {self.max_length} letters; "
                f"the shortest has {9 if self.embedded else 5}"
            )
        if self.distinct and self.num_valid > self.num_available:
            raise InputError(
                f"the {self.grammar.name} has {self.num_available} strings of {self.min_length} to "
                f"{self.max_length} letters, got {self.num_valid} valid ones; widen the lengths or set "
                "distinct to false"
            )

    @property
    def grammar(self) -> Grammar:
        return EMBEDDED_REBER if self.embedded else REBER

    @property
    def num_available(self) -> int:
        """How many strings of these lengths the grammar has."""
        return sum(self.grammar.num_strings(self.max_length)[self.min_length :])

    @property
    def num_valid(self) -> int:
        return round(self.valid_share * self.num_strings)

    @property
    def change_names(self) -> tuple[str, ...]:
        """The changes that make false strings."""
        return self.changes or tuple(name for name in CHANGES if self.embedded or name != "forget")


def generate(settings: ReberSettings, seed: int) -> LabelledStrings:
    """Draw strings, valid and false ones in random order; the same seed gives the same strings.

    False strings are changed valid ones, drawn for the purpose like those that stay valid, so that lengths
    hardly tell the two apart.

    Args:
        settings: how many, of which kind.
        seed: of every draw.

    Raises:
        InputError: the lengths hold too few strings to draw that many distinct ones at random.
    """
    random = np.random.default_rng(derive_seed(seed, "reber"))
    num_false = settings.num_strings - settings.num_valid
    valid = _take(_walks(settings, random), settings, settings.num_valid)
    bases = _take(_walks(settings, random), settings, min(num_false, settings.num_available))
    false = _take(_changed(bases, settings, random), settings, num_false)
    strings = [(string, True) for string in valid] + [(string, False) for string in false]
    strings = [strings[place] for place in random.permutation(len(strings))]
    return LabelledStrings(tuple(string for string, _ in strings), tuple(label for _, label in strings))


def _take(draws: Iterator[str], settings: ReberSettings, count: int) -> list[str]:
    """The first `count` draws, each once if they must be distinct."""
    taken: dict[str, None] | list[str]
    if settings.distinct:
        taken = {}
        for string in islice(draws, _DRAWS_PER_STRING * count):
            taken[string] = None
            if len(taken) == count:
                break
    else:
        taken = list(islice(draws, count))
    if len(taken) < count:
        remedy = "ask for fewer or set distinct to false" if settings.distinct else "or allow other changes"
        raise InputError(
            f"{count} strings of {settings.min_length} to {settings.max_length} letters are too many to draw "
            f"at random, got {len(taken)}; widen the lengths, {remedy}"
        )
    return list(taken)


def _walks(settings: ReberSettings, random: np.random.Generator) -> Iterator[str]:
    """Valid strings without end."""
    lengths_N = np.arange(settings.min_length, settings.max_length + 1)
    chance_N = settings.grammar.chances(settings.max_length)[settings.min_length :, 0]
    weight_N = chance_N if settings.lengths == "walk" else (chance_N > 0).astype(float)
    weight_N /= weight_N.sum()
    while True:
        yield from settings.grammar.walk(random.choice(lengths_N, size=4096, p=weight_N), random)


def _changed(bases: list[str], settings: ReberSettings, random: np.random.Generator) -> Iterator[str]:
    """False strings, each a valid one changed; without end, unless no change of any string is allowed."""
    fruitless = 0  # strings in a row
    while fruitless < max(_FRUITLESS, len(bases)):
        for base in bases:
            fruitless += 1
            change = CHANGES[_pick(settings.change_names, random)]
            for _ in range(_TRIES):
                string = change(base, random)
                in_range = settings.min_length <= len(string) <= settings.max_length
                if in_range and not settings.grammar.accepts(string):
                    fruitless = 0
                    yield string
                    break
