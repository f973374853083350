"""What sparse training shows: densities as a table, and a record of every topology update."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hyperprune.errors import unknown_name
from hyperprune.sparsity.masks import EXPLORED, GROWN, KILLED, MaskedTensor
from hyperprune.sparsity.network import SparseNetwork
from hyperprune.sparsity.schedules import Clock

_MOST_RECORDS = 1000


@dataclass(frozen=True, kw_only=True)
class TensorSummary:
    """Live weights of one tensor.

    Attributes:
        gates: live weights per gate, for a tensor that stacks several; else empty.
    """

    name: str
    shape: tuple[int, ...]
    live: int
    total: int
    gates: tuple[int, ...] = ()

    @property
    def density(self) -> float:
        return self.live / self.total

    @property
    def gate_densities(self) -> tuple[float, ...]:
        return tuple(live * len(self.gates) / self.total for live in self.gates)


@dataclass(frozen=True)
class Summary:
    """Live weights of all pruned tensors; iterates over them, prints as a table."""

    tensors: tuple[TensorSummary, ...]

    @classmethod
    def of(cls, tensors: Sequence[MaskedTensor]) -> Summary:
        return cls(tuple(_summary(tensor) for tensor in tensors))

    def __iter__(self) -> Iterator[TensorSummary]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __getitem__(self, name: str) -> TensorSummary:
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise unknown_name("pruned tensor", name, [tensor.name for tensor in self.tensors])

    @property
    def live(self) -> int:
        return sum(tensor.live for tensor in self.tensors)

    @property
    def total(self) -> int:
        return sum(tensor.total for tensor in self.tensors)

    @property
    def density(self) -> float:
        return self.live / self.total

    @property
    def sparsity(self) -> float:
        return 1.0 - self.density

    def __str__(self) -> str:
        head = ("tensor", "shape", "live", "total", "density", "by gate")
        rows = [
            (
                tensor.name,
                "x".join(map(str, tensor.shape)),
                f"{tensor.live:,}",
                f"{tensor.total:,}",
                f"{tensor.density:.4f}",
                " ".join(f"{density:.3f}" for density in tensor.gate_densities),
            )
            for tensor in self.tensors
        ]
        rows.append(("all", "", f"{self.live:,}", f"{self.total:,}", f"{self.density:.4f}", ""))
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        lines = []
        for row in [head, *rows]:
            cells = [
                cell.rjust(width) if 2 <= i <= 4 else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Update:
    """What topology updates did, up to and including the one after step `step`.

    Attributes:
        step, epoch: optimizer steps done, epochs ended.
        death_rate: that was due at this update; what died is in `num_killed` (Deep-R and Narang's thresholds
            kill without a rate).
        num_killed, num_grown: weights, summed over the updates since the previous record.
        turnover: share of the live weights whose positions are new, summed likewise.
        explored: share of all weights that have ever been live.
        density: of each tensor, by name.
        gate_density: of each gate, by name of the tensors that stack several.
    """

    step: int
    epoch: int
    death_rate: float
    num_killed: int
    num_grown: int
    turnover: float
    explored: float
    density: Mapping[str, float]
    gate_density: Mapping[str, tuple[float, ...]]


class History:
    """Records of updates, at most about a thousand over the planned steps.

    Attributes:
        num_updates: all of them.
        turnover: summed over all of them.
    """

    def __init__(self, total_steps: int) -> None:
        self.updates: list[Update] = []
        self.num_updates = 0
        self.turnover = 0.0
        self._interval = math.ceil(total_steps / _MOST_RECORDS)
        self._pending = {"num_killed": 0, "num_grown": 0, "turnover": 0.0}

    def record(self, network: SparseNetwork, clock: Clock, death_rate: float) -> None:
        """Take note of an update whose changes are still marked in the masks."""
        num_killed = num_grown = num_new = 0
        for block in network.blocks:
            num_killed += block.num_with(KILLED)
            num_grown += block.num_with(GROWN)
            num_new += block.num_with(KILLED | GROWN, GROWN)
        self._pending["num_killed"] += num_killed
        self._pending["num_grown"] += num_grown
        turnover = num_new / max(1, network.num_live())
        self._pending["turnover"] += turnover
        self.num_updates += 1
        self.turnover += turnover
        if self.updates and clock.num_steps - self.updates[-1].step < self._interval:
            return
        summary = Summary.of(network.tensors)
        self.updates.append(
            Update(
                step=clock.num_steps,
                epoch=clock.num_epochs,
                death_rate=death_rate,
                num_killed=int(self._pending["num_killed"]),
                num_grown=int(self._pending["num_grown"]),
                turnover=self._pending["turnover"],
                explored=explored(network),
                density={row.name: row.density for row in summary},
                gate_density={row.name: row.gate_densities for row in summary if row.gates},
            )
        )
        self._pending = {"num_killed": 0, "num_grown": 0, "turnover": 0.0}

    def state_dict(self) -> dict[str, Any]:
        return {
            "updates": [asdict(update) for update in self.updates],
            "pending": dict(self._pending),
            "num_updates": self.num_updates,
            "turnover": self.turnover,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.updates = [
            Update(**{**entry, "gate_density": {k: tuple(v) for k, v in entry["gate_density"].items()}})
            for entry in state["updates"]
        ]
        self._pending = dict(state["pending"])
        self.num_updates = state["num_updates"]
        self.turnover = state["turnover"]


def explored(network: SparseNetwork) -> float:
    """Share of all weights that have ever been live."""
    return sum(block.num_with(EXPLORED) for block in network.blocks) / network.total


def _summary(tensor: MaskedTensor) -> TensorSummary:
    gates = tuple(block.num_live() for block in tensor.blocks(by_gate=True))
    return TensorSummary(
        name=tensor.name,
        shape=tuple(tensor.parameter.shape),
        live=sum(gates),
        total=tensor.total,
        gates=gates if len(gates) > 1 else (),
    )
