"""What is recorded: which worlds, which candidates in them, in which order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hyperprune.errors import InputError
from hyperprune.hypersearch.space import ALLOCATIONS, DENSE, Configuration, Space, paper_branch
from hyperprune.sparsity.methods import DynamicSparse

DETAILED_TO = 12  # every epoch up to this one, then every fourth
DETAILED_EVERY = 4


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A world and the candidates recorded in it.

    Attributes:
        name: begins the names of the tables' files.
        task: a task's name.
        settings: the task's tables [model], [text], [training], by name.
        epochs: of every cell; the death rate's cosine spans them.
        seeds: each complete before the next begins.
        sparsities: of the candidates, in this order.
        death_rates: the paper's 24 grid points at each of these; the first is complete before the next. With
            none, nor methods, the dense model is recorded alone.
        controls: whether static sparse training and a threshold death that meets its target at once are
            recorded too, behind the first death rate.
        methods: whether one or two candidates of every other pruning method are recorded, behind all others.
        full_state: whether spectra of the full state are measured beside those of the hidden state, at epochs
            0 to 12 and the last: one takes six times as long. Without a cell state there is no difference.
    """

    name: str
    task: str = "ptb-mini"
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    epochs: int = 36
    seeds: tuple[int, ...] = (0,)
    sparsities: tuple[float, ...] = (0.67,)
    death_rates: tuple[float, ...] = (0.8,)
    controls: bool = False
    methods: bool = False
    full_state: bool = True

    def __post_init__(self) -> None:
        bad = [rate for rate in self.death_rates if not 0 < rate < 1]
        if bad:
            raise InputError(f"death rates must lie in (0, 1), got {bad[0]:g}; the paper's are 0.4 to 0.9")
        bad = [sparsity for sparsity in self.sparsities if not 0 < sparsity < 1]
        if bad:
            raise InputError(f"sparsities must lie in (0, 1), got {bad[0]:g}; the paper's is 0.67")


_RATE_OF_CONTROLS = 0.8  # whatever others are recorded besides: they are of the first rate's candidates
_GRU = {"preset": "gru-mini", "dropout_input": 0.3, "dropout_hidden": 0.3, "dropout_output": 0.3}
SCALES = {
    "small": Scale(name="ptb-mini", seeds=(0, 1, 2), death_rates=(0.8, 0.5, 0.65), controls=True),
    "methods": Scale(name="ptb-mini", death_rates=(), methods=True),
    "sparsities": Scale(name="ptb-mini", sparsities=(0.9, 0.8, 0.5, 0.6)),
    "unscaled": Scale(name="ptb-mini-unscaled", settings={"training": {"rescale_weights": False}}),
    "gru": Scale(name="ptb-mini-gru", settings={"model": _GRU}, full_state=False),
    "rhn": Scale(name="ptb-mini-rhn", settings={"model": {"preset": "rhn-mini"}}, full_state=False),
    "medium": Scale(name="ptb-medium", task="ptb", settings={"model": {"preset": "medium"}}, epochs=40),
    "large": Scale(name="ptb-large", task="ptb", epochs=20, death_rates=(), full_state=False),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model to train: a configuration at a sparsity, from one seed's weights and data.

    Attributes:
        group: cells of a group, sparsity and seed make one table.
    """

    configuration: Configuration
    sparsity: float
    seed: int
    group: str

    @property
    def key(self) -> str:
        """Its name, also of its folder."""
        parts = [self.configuration.label.replace(" · ", "-").replace(" ", "-").replace("=", "-")]
        if dict(self.configuration.settings).get("threshold_at_once"):  # which the label does not tell
            parts.append("at-once")
        if self.configuration != DENSE:
            parts.append(f"sparsity-{self.sparsity:g}")
        return "-".join([*parts, f"seed-{self.seed}"])


def dense_cell(seed: int) -> Cell:
    return Cell(configuration=DENSE, sparsity=0.0, seed=seed, group="dense")


def candidate_cells(scale: Scale, seed: int) -> list[Cell]:
    """The cells of a seed, the dense model apart, in the order in which they are trained."""
    grids = {f"rate-{rate:g}": Space(branches=[paper_branch(rate)]).grid() for rate in scale.death_rates}
    groups = dict(list(grids.items())[:1])
    if scale.controls:
        groups["controls"] = _controls()
    groups |= grids
    if scale.methods:
        groups["methods"] = _methods()
    return [
        Cell(configuration=configuration, sparsity=sparsity, seed=seed, group=group)
        for sparsity in scale.sparsities
        for group, configurations in groups.items()
        for configuration in configurations
    ]


def _controls() -> list[Configuration]:
    """What a threshold death that begins small is to be told from.

    Static training never moves a weight. A threshold that meets its target at once kills as the global
    magnitude does, so that the pair also shows what other random draws alone change.
    """
    at_once = DynamicSparse(death="threshold", threshold_at_once=True)
    return [
        *(Configuration.of("static", allocation=allocation) for allocation in ALLOCATIONS),
        *(
            Configuration.of(
                at_once.name,
                allocation=allocation,
                death=at_once.death,
                growth="random",
                redistribution=redistribution,
                death_rate=_RATE_OF_CONTROLS,
                update_every="epoch",
                threshold_at_once=True,
            )
            for allocation, redistribution in (("uniform", "none"), ("er", "nonzeros"))
        ),
    ]


def _methods() -> list[Configuration]:
    """One or two candidates of every pruning method outside the paper's space.

    Settings are the defaults but for two whose defaults the task's learning rate of 20 makes too strong
    (docs/methods.md). snfs is missing: it needs momentum, so another recipe than the dense model's.
    """
    gradient_growth = {"death": "magnitude", "growth": "gradient", "redistribution": "none"}
    both: list[tuple[str, dict[str, Any]]] = [
        ("rigl", {}),
        ("set_", {}),
        ("dsr", {}),
        ("deep_r", {"l1": 0.0}),
        ("top_kast", {"penalty": 0.0}),
        ("dynamic_sparse", {**gradient_growth, "death_rate": 0.8, "update_every": "epoch"}),
        ("gmp", {}),
    ]
    return [
        *(
            Configuration.of(method, allocation=allocation, **settings)
            for method, settings in both
            for allocation in ALLOCATIONS
        ),
        *(
            Configuration.of("static", at_init=criterion)
            for criterion in ("snip", "grasp", "synflow", "jacobian", "magnitude")
        ),
        *(Configuration.of(method) for method in ("narang", "iterative_magnitude", "lottery_ticket")),
    ]


def full_state_epochs(scale: Scale) -> tuple[int, ...]:
    """Epochs at which spectra of the full state are measured."""
    return (*range(DETAILED_TO + 1), scale.epochs) if scale.full_state else ()


def is_detailed(epoch: int) -> bool:
    """Whether spectra of raw weights and after the topology update are measured at this epoch."""
    return epoch <= DETAILED_TO or epoch % DETAILED_EVERY == 0
