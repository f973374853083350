"""Where the weights that a mask keeps lie: counts for each tensor and gate.

Gates are named in the order in which the modules stack them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from hyperprune.models.cells import RHN, PeepholeLSTM
from hyperprune.sparsity.parameters import num_gates, unwrapped

_GATES: tuple[tuple[type[nn.Module], tuple[str, ...]], ...] = (
    (nn.LSTM, ("i", "f", "g", "o")),
    (PeepholeLSTM, ("i", "f", "g", "o")),
    (nn.GRU, ("r", "z", "n")),
    (RHN, ("h", "t", "c")),
)


@dataclass(frozen=True)
class Kept:
    """One gate of one tensor.

    Attributes:
        tensor: the parameter's name.
        gate: the gate's name; "" of a tensor that stacks none.
        live, total: weights.
    """

    tensor: str
    gate: str
    live: int
    total: int

    @property
    def density(self) -> float:
        return self.live / self.total


def kept_by_gate(model: nn.Module, masks: Mapping[str, Tensor]) -> list[Kept]:
    """How many weights each gate of each masked tensor keeps, in the model's order."""
    rows = []
    for name, mask in masks.items():
        count = num_gates(model, name)
        owner = unwrapped(model).get_submodule(name.rpartition(".")[0])
        known = next((names for kind, names in _GATES if isinstance(owner, kind)), ())
        names = known if len(known) >= count > 1 else tuple(map(str, range(count)))
        for gate, part in zip(names, mask.chunk(count), strict=False):
            live = int(part.count_nonzero())
            rows.append(Kept(name, gate if count > 1 else "", live, part.numel()))
    return rows
