"""What a search chooses from: configurations, and the space they are drawn from.

A space is a list of branches. A branch is a pruning method with settings of its own: some fixed, some one of
several values, some from a range. A setting of one branch means nothing to another (Bergstra & Bengio 2011
call such a space tree-structured); every proposer draws the branch first and then its own settings. The
sparsity may be one more dimension, under a trade-off that is stated with it.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hyperprune.errors import InputError
from hyperprune.hypersearch.dimensions import Choice, Dimension, Range, dimension, frozen, plain
from hyperprune.records import MODEL
from hyperprune.sparsity import methods

ALLOCATIONS = ["uniform", "er"]
DEATHS = ["magnitude", "set", "threshold", "global_magnitude"]
REDISTRIBUTIONS = ["none", "magnitude", "nonzeros"]
_SHOWN = {"allocation", "death", "redistribution", "death_rate"}
_TOLD = {*_SHOWN, "growth"}
_EVERY_EPOCH = ("update_every", "epoch")
_MOST_CHECKED = 4096  # combinations of a branch that are built when the space is made
Suggest = Callable[[str, Dimension], Any]


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A pruning method and its settings: hashable, comparable, serialisable.

    Attributes:
        method: a name of `hyperprune.methods.names()`.
        settings: (name, value) pairs in alphabetical order; names that begin with "model." are of the task's
            table [model], where the network itself is searched.
        sparsity: where it is searched; None is the run's.
    """

    method: str
    settings: tuple[tuple[str, Any], ...] = ()
    sparsity: float | None = None

    @classmethod
    def of(cls, method: str, /, *, sparsity: float | None = None, **settings: Any) -> Configuration:
        pairs = tuple(sorted((name, frozen(value)) for name, value in settings.items()))
        return cls(method=method, settings=pairs, sparsity=sparsity)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Configuration:
        settings = dict(data)
        return cls.of(settings.pop("method"), **settings)

    def to_json(self) -> dict[str, Any]:
        searched = {} if self.sparsity is None else {"sparsity": self.sparsity}
        return {"method": self.method, **searched, **{name: plain(value) for name, value in self.settings}}

    @property
    def text(self) -> str:
        """The canonical form, which names the configuration's random draws."""
        return json.dumps(self.to_json(), sort_keys=True)

    @property
    def label(self) -> str:
        """For people: the settings that the paper's space varies, else the method and its settings.

        Recorded cells are named by it, so that it stays as it is.
        """
        return self._label(whole=False)

    @property
    def full_label(self) -> str:
        """The label with the other settings too; growth at random and updates by epoch go without saying."""
        return self._label(whole=True)

    def _label(self, *, whole: bool) -> str:
        values = dict(self.settings)
        searched = [] if self.sparsity is None else [f"{100 * self.sparsity:.4g} %"]
        if self.method != "dynamic_sparse" or not values.keys() >= _SHOWN:
            shown = [f"{name}={plain(value)}" for name, value in self.settings]
            return " ".join([self.method, *shown, *searched])
        shown = [values.get("allocation"), values.get("death"), values.get("redistribution")]
        if values.get("growth", "random") != "random":
            shown.append(values["growth"])
        shown.append(f"{values['death_rate']:g}")
        if whole:
            others = [pair for pair in self.settings if pair[0] not in _TOLD and pair != _EVERY_EPOCH]
            shown += [f"{name}={plain(value)}" for name, value in others]
        return " · ".join([*map(str, shown), *searched])

    def pruned_to(self, sparsity: float | None) -> float:
        """Its own sparsity, where that is searched, else the run's; 0 for the dense reference."""
        if self == DENSE:
            return 0.0
        own = sparsity if self.sparsity is None else self.sparsity
        assert own is not None
        return own

    def build(self) -> methods.Method:
        """The method itself; an unknown name or setting is an `InputError`."""
        own = {name: value for name, value in self.settings if not name.startswith(MODEL)}
        return methods.get(self.method, **own)

    @property
    def model(self) -> tuple[tuple[str, Any], ...]:
        """The settings of the task's table [model] that it changes."""
        return tuple(
            (name.removeprefix(MODEL), value) for name, value in self.settings if name.startswith(MODEL)
        )


DENSE = Configuration.of("dense")


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A pruning method and what its settings may be; `of` checks them, the class takes them as they are.

    Attributes:
        method: a name of `hyperprune.methods.names()`, "dense" excepted.
        settings: (name, dimension) pairs: choices before ranges, each in alphabetical order.
        optional: leave the branch out, with a note, where a task cannot train it; else that is an error.
    """

    method: str
    settings: tuple[tuple[str, Dimension], ...] = ()
    optional: bool = False

    @classmethod
    def of(cls, method: str, /, *, optional: bool = False, **settings: Any) -> Branch:
        """A branch whose settings are values, lists of values to choose from, and ranges.

        `model`, a mapping of such settings by name, is of the task's table [model]: it varies the network.
        The task checks those when the search begins.

        Raises:
            InputError: an unknown method or setting, or a value that it does not take.
        """
        where = f"branch {method!r}"
        model = settings.pop("model", {})
        if not isinstance(model, Mapping):
            raise InputError(f"{where}: model must be a table of the task's settings, got {model!r}")
        settings |= {MODEL + name: value for name, value in model.items()}
        dimensions = [(name, dimension(value, f"{where}, {name}")) for name, value in settings.items()]
        ordered = sorted(dimensions, key=lambda pair: (isinstance(pair[1], Range), pair[0]))
        branch = cls(method=method, settings=tuple(ordered), optional=optional)
        branch._check()
        return branch

    def _check(self) -> None:
        if self.method == "dense":
            raise InputError("a branch must prune, and 'dense' does not; the reference is trained anyway")
        if "sparsity" in dict(self.settings):
            raise InputError(
                f"branch {self.method!r}: sparsity is no setting of a method; set it in [space] for all"
            )
        for settings in self._corners():
            try:
                Configuration.of(self.method, **settings).build()
            except InputError as error:
                raise InputError(f"branch {self.method!r}: {error}") from error

    def _corners(self) -> Iterator[dict[str, Any]]:
        """Every combination of choices and ends of ranges; a seeded part of them where they are too many."""
        names, values = [name for name, _ in self.settings], [own.corners for _, own in self.settings]
        if math.prod(map(len, values)) <= _MOST_CHECKED:
            yield from (dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*values))
            return
        random = np.random.default_rng(0)
        for _ in range(_MOST_CHECKED):
            yield {name: own[random.integers(len(own))] for name, own in zip(names, values, strict=True)}

    @property
    def size(self) -> int:
        return math.prod(own.size for _, own in self.settings)

    def cover(self) -> list[Configuration]:
        """As few configurations as show every choice and both ends of every range at least once."""
        longest = max((len(own.corners) for _, own in self.settings), default=1)
        return [
            Configuration.of(
                self.method,
                **{name: own.corners[number % len(own.corners)] for name, own in self.settings},
            )
            for number in range(longest)
        ]

    def holds(self, configuration: Configuration) -> bool:
        own, values = dict(self.settings), dict(configuration.settings)
        return (
            configuration.method == self.method
            and own.keys() == values.keys()
            and all(values[name] in own[name] for name in own)
        )

    def overlaps(self, other: Branch) -> bool:
        own, others = dict(self.settings), dict(other.settings)
        return (
            self.method == other.method
            and own.keys() == others.keys()
            and all(own[name].overlaps(others[name]) for name in own)
        )

    def to_mapping(self) -> dict[str, Any]:
        """As it is written in TOML."""
        optional = {"optional": True} if self.optional else {}
        model = {
            name.removeprefix(MODEL): own.to_toml()
            for name, own in sorted(self.settings)
            if name.startswith(MODEL)
        }
        return {
            "method": self.method,
            **optional,
            **{name: own.to_toml() for name, own in sorted(self.settings) if not name.startswith(MODEL)},
            **({"model": model} if model else {}),
        }


def paper_branch(grid_death_rate: float = 0.8) -> Branch:
    """Sparse initialisation × death × redistribution (24 points) × death rate; growth is random.

    Reference: the LSH paper, §4.
    """
    return Branch.of(
        "dynamic_sparse",
        allocation=ALLOCATIONS,
        death=DEATHS,
        growth=["random"],
        redistribution=REDISTRIBUTIONS,
        death_rate=Range(0.4, 0.9, at=(grid_death_rate,)),
        update_every="epoch",
    )


@dataclass(frozen=True, kw_only=True)
class Space:
    """Branches, and, where it is searched, the sparsity.

    Attributes:
        branches: at least one; the LSH paper's where none are given. No configuration lies in two.
        sparsity: what it may be, within [0, 1): a list, or a `Range`. None leaves it to the run.
        sparsity_weight: w ≥ 0 of the trade-off, with `sparsity` only. Candidates are ranked by
            signal · (1 + w · density), and finalists by metric · (1 + w · density), where density is
            1 − sparsity (a metric that should be high is divided instead). With w = 0.5 a network with all
            its weights counts as half as bad again as one with none; 0 ranks by the bare numbers.
    """

    branches: Sequence[Branch] = field(default_factory=lambda: [paper_branch()])
    sparsity: Any = None
    sparsity_weight: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "branches", tuple(self.branches))
        if not self.branches:
            raise InputError("a space must have at least one branch, got none; add [[space.branch]]")
        for first, second in itertools.combinations(self.branches, 2):
            if first.overlaps(second):
                raise InputError(
                    f"branches must not share configurations, and two of {first.method!r} do; merge them, or "
                    "fix a setting to different values"
                )
        if self.sparsity is None:
            if self.sparsity_weight is not None:
                raise InputError(
                    "sparsity_weight needs a sparsity that is searched; remove it or add sparsity"
                )
            return
        searched = dimension(self.sparsity, "[space] sparsity")
        object.__setattr__(self, "sparsity", searched)
        for value in searched.corners:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                raise InputError(f"[space] sparsity must lie in [0, 1), got {value!r}; 0.9 keeps a tenth")
        weight = self.sparsity_weight
        if weight is None or not (weight >= 0 and math.isfinite(weight)):
            raise InputError(
                "a searched sparsity needs its trade-off, sparsity_weight ≥ 0 (candidates are ranked by "
                f"metric · (1 + sparsity_weight · density)), got {weight}; 0 ranks by the metric alone"
            )

    def grid(self) -> list[Configuration]:
        """Every combination of choices and grid values, in the order of the branches."""
        return [point for branch in self.branches for point in self._products(branch, lambda own: own.grid)]

    def size(self) -> int:
        """How many different configurations can be drawn, exactly."""
        return sum(branch.size for branch in self.branches) * math.prod(own.size for _, own in self._sparsity)

    def everything(self) -> Iterator[Configuration]:
        """All configurations, `size()` of them."""
        for branch in self.branches:
            yield from self._products(branch, lambda own: own.values())

    def _products(
        self, branch: Branch, values_of: Callable[[Dimension], Sequence[Any]]
    ) -> Iterator[Configuration]:
        dimensions = [*branch.settings, *self._sparsity]
        names = [name for name, _ in dimensions]
        for values in itertools.product(*(values_of(own) for _, own in dimensions)):
            yield Configuration.of(branch.method, **dict(zip(names, values, strict=True)))

    def ask(self, suggest: Suggest) -> Configuration:
        """The configuration that `suggest(name, dimension)` decides on, asked for one value after the other.

        Only the chosen branch's own dimensions are asked for; their names begin with the branch's number.
        """
        number = suggest("branch", self._which) if len(self.branches) > 1 else 0
        answers = {name: suggest(name, own) for name, own in self.dimensions(number).items()}
        values = {name.rpartition(" ")[2]: value for name, value in answers.items()}
        return Configuration.of(self.branches[number].method, **values)

    def dimensions(self, number: int) -> dict[str, Dimension]:
        """What `ask` asks for in a branch, by the name that it uses."""
        own = {f"{number} {name}": own for name, own in self.branches[number].settings}
        return own | dict(self._sparsity)

    def sample(self, random: np.random.Generator) -> Configuration:
        """A draw: each branch is equally likely, and so is each of its values."""
        return self.ask(lambda _, own: own.sample(random))

    def coordinates(self, configuration: Configuration) -> dict[str, tuple[Dimension, Any]] | None:
        """The answers that `ask` would have got, by name, with their dimensions; None if it lies outside."""
        number = next((n for n, branch in enumerate(self.branches) if branch.holds(configuration)), None)
        if number is None or (configuration.sparsity is None) != (self.sparsity is None):
            return None
        values = {**dict(configuration.settings), "sparsity": configuration.sparsity}
        found: dict[str, tuple[Dimension, Any]] = {}
        if len(self.branches) > 1:
            found["branch"] = (self._which, number)
        for name, own in self.dimensions(number).items():
            value = values[name.rpartition(" ")[2]]
            if value not in own:
                return None
            found[name] = (own, value)
        return found

    def at(self, configuration: Configuration) -> list[Configuration]:
        """The configuration at the least and the largest sparsity there is; itself if that is fixed."""
        values = sorted({value for _, own in self._sparsity for value in own.corners})
        return [replace(configuration, sparsity=value) for value in (values[:1] + values[1:][-1:])] or [
            configuration
        ]

    def to_mapping(self) -> dict[str, Any]:
        """As it is written in TOML; `spaces.space_from` makes an equal space of it."""
        searched = {name: own.to_toml() for name, own in self._sparsity}
        weight = {} if self.sparsity_weight is None else {"sparsity_weight": self.sparsity_weight}
        return {"branch": [branch.to_mapping() for branch in self.branches], **searched, **weight}

    @property
    def _sparsity(self) -> list[tuple[str, Dimension]]:
        return [] if self.sparsity is None else [("sparsity", self.sparsity)]

    @property
    def _which(self) -> Choice:
        return Choice(tuple(range(len(self.branches))))
