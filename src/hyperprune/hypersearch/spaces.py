"""Spaces by name, and spaces from a configuration file.

    SPACES["mine"] = lambda: Space(branches=[Branch.of("rigl", death_rate=Range(0.1, 0.5, digits=2))])

adds one of your own, before a search names it (a task file is a good place).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hyperprune.errors import InputError, unknown_name
from hyperprune.hypersearch.dimensions import Range
from hyperprune.hypersearch.space import ALLOCATIONS, DEATHS, REDISTRIBUTIONS, Branch, Space, paper_branch
from hyperprune.settings import from_mapping
from hyperprune.sparsity import methods
from hyperprune.sparsity.gradual import GradualMethod


def paper(grid_death_rate: float = 0.8) -> Space:
    """`Space()`, the LSH paper's: 24 points × death rate.

    Args:
        grid_death_rate: the one death rate of the grid; the paper has 0.8 for the stacked LSTM, 0.5 for RHN.
    """
    return Space(branches=[paper_branch(grid_death_rate)])


def wide() -> Space:
    """Every pruning method with settings of its own, around those of its paper.

    Branches that a task cannot train (sparse momentum with an optimizer without momentum) are left out with a
    note. Methods that begin dense (`begins_dense`) look like the dense model early, whatever becomes of them:
    by any early signal they rank too well. `sparse_to_sparse` leaves them out.
    """
    rate = Range(0.1, 0.6, digits=2, at=(0.3,))
    end = Range(0.4, 0.8, digits=2, at=(0.75,))
    rounds = Range(3, 8, digits=0, at=(5,))
    branches = [
        Branch.of(
            "dynamic_sparse",
            allocation=ALLOCATIONS,
            death=DEATHS,
            growth=["random", "gradient"],
            redistribution=REDISTRIBUTIONS,
            death_rate=Range(0.1, 0.9, at=(0.5,)),
            update_every="epoch",
        ),
        Branch.of("static", allocation=ALLOCATIONS),
        Branch.of("set_", death_rate=rate),
        Branch.of("deep_r", allocation=ALLOCATIONS, l1=Range(1e-6, 1e-4, digits=2, log=True, at=(1e-5,))),
        Branch.of("dsr", death_rate=rate, threshold_start=Range(1e-4, 1e-2, digits=2, log=True, at=(1e-3,))),
        Branch.of("snfs", death_rate=rate),
        Branch.of("rigl", allocation=ALLOCATIONS, update_every=[100, "epoch"], death_rate=rate),
        Branch.of(
            "top_kast",
            allocation=ALLOCATIONS,
            backward=Range(0.05, 0.3, digits=2, at=(0.1,)),
            penalty=Range(1e-5, 1e-3, digits=2, log=True, at=(1e-4,)),
        ),
        Branch.of("selfish_rnn", gates=["exchange", "separate"], death_rate=Range(0.4, 0.9, at=(0.8,))),
        Branch.of("gmp", allocation=ALLOCATIONS, end=end),
        Branch.of("narang", end=end, ramp=Range(0.1, 0.5, digits=2, at=(0.25,))),
        Branch.of("iterative_magnitude", scope=["tensor", "network"], end=end, num_rounds=rounds),
        Branch.of("lottery_ticket", scope=["tensor", "network"], end=end, num_rounds=rounds),
    ]
    return Space(branches=[_optional(branch) for branch in branches])


def sparse_to_sparse() -> Space:
    """`wide` without the methods that begin dense."""
    return Space(branches=[branch for branch in wide().branches if not begins_dense(branch.method)])


def graphs() -> Space:
    """Random graphs that wire the network, for a task like `reber-graph`, to be searched at sparsity 0.

    The task's own graph is the reference: family "stack", of as many nodes as every candidate's.
    """
    seed = Range(0, 999, digits=0)
    families: list[dict[str, Any]] = [
        {"family": "barabasi_albert", "attachments": Range(1, 6, digits=0)},
        {"family": "watts_strogatz", "neighbours": Range(2, 8, digits=0), "rewiring": Range(0, 1, digits=2)},
        {"family": "erdos_renyi", "probability": Range(0.2, 0.6, digits=2)},
        {"family": "kleinberg", "shortcuts": Range(1, 3, digits=0), "exponent": Range(0, 3, digits=1)},
    ]
    return Space(branches=[Branch.of("static", model={**model, "graph_seed": seed}) for model in families])


def begins_dense(method: str) -> bool:
    """Whether a method of that name trains a dense network first and prunes it on the way."""
    return issubclass(methods.kind(method), GradualMethod)


def _optional(branch: Branch) -> Branch:
    return Branch(method=branch.method, settings=branch.settings, optional=True)


SPACES: dict[str, Callable[[], Space]] = {
    "graphs": graphs,
    "paper": paper,
    "sparse_to_sparse": sparse_to_sparse,
    "wide": wide,
}


def get_space(name: str) -> Space:
    """The space of that name; an unknown one is an `InputError`."""
    if name not in SPACES:
        raise unknown_name("space", name, SPACES)
    return SPACES[name]()


@dataclass(frozen=True, kw_only=True)
class _SpaceTable:
    name: str | None = None
    sparsity_weight: float | None = None


def space_from(values: Mapping[str, Any]) -> Space:
    """The space that the table [space] of a configuration file describes.

    Args:
        values: `name`, or `branch` (a list of tables: `method`, `optional` and the method's settings), or
            neither for the paper's; `sparsity` and `sparsity_weight`.

    Raises:
        InputError: an unknown key, or a value that breaks a rule.
    """
    table = dict(values)
    branches, sparsity = table.pop("branch", None), table.pop("sparsity", None)
    unknown = [key for key in table if key not in ("name", "sparsity_weight")]
    if unknown:
        raise unknown_name("key in [space]", unknown[0], ("name", "branch", "sparsity", "sparsity_weight"))
    plain = from_mapping(_SpaceTable, table, "[space]")
    if branches is None:
        own = get_space("paper" if plain.name is None else plain.name).branches
    elif plain.name is not None:
        raise InputError("[space] must have a name or branches of its own, got both; remove one")
    else:
        own = _branches(branches)
    return Space(branches=own, sparsity=sparsity, sparsity_weight=plain.sparsity_weight)


def _branches(tables: Any) -> list[Branch]:
    if not isinstance(tables, list | tuple) or not all(isinstance(table, Mapping) for table in tables):
        raise InputError(f"[space] branch must be a list of tables, [[space.branch]], got {tables!r}")
    branches = []
    for table in tables:
        settings = dict(table)
        method, optional = settings.pop("method", None), settings.pop("optional", False)
        if not isinstance(method, str):
            raise InputError(
                f"[[space.branch]] must set method to a name of 'hyperprune methods', got {method!r}"
            )
        if not isinstance(optional, bool):
            raise InputError(f"[[space.branch]] optional must be true or false, got {optional!r}")
        branches.append(Branch.of(method, optional=optional, **settings))
    return branches
