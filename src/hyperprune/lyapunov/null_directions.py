"""How many directions a long product of Jacobians loses by their zeros alone, along chains of units too.

Of matrices with given places of zeros, whatever else is in them, a product of n has at most the rank that it
has for nearly all entries. That is the number of paths of n steps through the units that share no unit at any
step (Menger's theorem, as a maximum flow), so it is counted, without any round-off.

Axes: F factors of a step, S state.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hyperprune.lyapunov.jacobians import Layer


class NullDirections:
    """Of one layer; counted when first asked for.

    Args:
        transposed: whether products are of Jᵀ.
    """

    def __init__(self, layer: Layer, *, transposed: bool) -> None:
        self._layer = layer
        self._transposed = transposed
        self._ranks: list[int] = []

    def count(self, num_factors: int, coefficients: Float[Tensor, "B ..."]) -> int:
        """How many are lost by the first so many factors, counted from the first step of all.

        Args:
            num_factors: at least 1.
            coefficients: of any factor, for their form.
        """
        if not self._ranks:
            self._ranks = self._all_ranks(coefficients[:1])
        return self._layer.state_size - self._ranks[min(num_factors, len(self._ranks)) - 1]

    def _all_ranks(self, coefficients: Float[Tensor, "1 ..."]) -> list[int]:
        """The rank after each factor, up to the first whole step that leaves it as it was.

        All later ones do so, too: from step to step ranks fall by less and less (Frobenius' inequality).
        """
        factors = [self._entries(factor, coefficients) for factor in range(self._layer.num_factors)]
        if self._transposed:
            factors = [is_entry_SS.T for is_entry_SS in reversed(factors)]
        ranks, pushed = [self._layer.state_size], list[np.ndarray]()
        while len(ranks) <= len(factors) or ranks[-1] < ranks[-1 - len(factors)]:
            for is_entry_SS in factors:
                pushed.append(is_entry_SS)
                ranks.append(num_disjoint_paths(pushed))
        return ranks[1:]

    def _entries(self, factor: int, coefficients: Float[Tensor, "1 ..."]) -> np.ndarray:
        """(S, S) where a factor may have entries, whatever the gates do."""
        jacobian_1SS = coefficients.new_empty(1, self._layer.state_size, self._layer.state_size)
        generator = torch.Generator(coefficients.device).manual_seed(0)
        some = torch.empty_like(coefficients).uniform_(0.5, 1.5, generator=generator)
        self._layer.build(factor, some, jacobian_1SS)
        return (jacobian_1SS[0] != 0).cpu().numpy()


def num_disjoint_paths(factors: list[np.ndarray]) -> int:
    """The most paths through all factors, one after the other, that share no unit at any step.

    Args:
        factors: (S, S) each, whether a unit (row) hears another one (column).
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    size, num_steps = len(factors[0]), len(factors)
    # A unit at a step is an edge that one path may take: from `enters` to `leaves`.
    enters = np.arange((num_steps + 1) * size).reshape(num_steps + 1, size)
    leaves = enters + enters.size
    source, sink = 2 * enters.size, 2 * enters.size + 1
    edges = [
        (enters.ravel(), leaves.ravel()),
        (np.full(size, source), enters[0]),
        (leaves[-1], np.full(size, sink)),
    ]
    for step, is_entry_SS in enumerate(factors):
        hears, heard = np.nonzero(is_entry_SS)
        edges.append((leaves[step, heard], enters[step + 1, hears]))
    starts, ends = (np.concatenate(nodes) for nodes in zip(*edges, strict=True))
    ones = np.ones(len(starts), dtype=np.int32)
    graph = csr_array((ones, (starts, ends)), shape=(sink + 1, sink + 1))
    return int(maximum_flow(graph, source, sink).flow_value)
