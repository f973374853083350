"""How a budget of live weights is spread over tensors; exact counts, never Bernoulli draws.

- `uniform`: the same density everywhere.
- `er` (Erdős-Rényi; Mocanu et al. 2018): a matrix of r rows and c columns gets a density in
  proportion to (r + c)/(r c), so live weights in proportion to r + c. For more axes the kernel form of
  Evci et al. 2020 (ERK): live weights in proportion to the sum of the axes. Densities are capped at 1
  and what exceeds is spread over the rest in the same proportion, so the total is met exactly.

An LSTM's 4H x n matrix counts as one matrix; a network wired by a graph, which stores the weights of its
edges alone, by the rows and columns of the matrices that they belong to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from hyperprune.errors import InputError, unknown_name
from hyperprune.sparsity.counts import apportion, num_live_at, rounded_share
from hyperprune.sparsity.masks import MaskedTensor

ALLOCATIONS: Mapping[str, Callable[[MaskedTensor], float]] = {
    "uniform": lambda tensor: float(tensor.total),
    "er": lambda tensor: float(sum(tensor.matrix_shape)),
}


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """Densities by rule, with exceptions by name.

    Attributes:
        rule: a name in `ALLOCATIONS`.
        densities: (pattern, density) pairs; the first pattern that matches a tensor fixes its density.
        counts_fixed: whether the tensors with a fixed density belong to the budget. If so the others make
            up for them and the network as a whole meets the sparsity; if not, the others alone meet it.
    """

    rule: str = "uniform"
    densities: tuple[tuple[str, float], ...] = ()
    counts_fixed: bool = True

    def num_live(
        self,
        tensors: Sequence[MaskedTensor],
        sparsity: float,
        *,
        final_sparsity: float | None = None,
        rooms: Sequence[int] | None = None,
    ) -> list[int]:
        """Live weights per tensor at a sparsity.

        Args:
            tensors: all pruned tensors.
            sparsity: of the network, in [0, 1).
            final_sparsity: where a method that prunes gradually is heading; fixed densities then fall in
                step with the network's, and no other tensor gets less than it has in the end. None:
                `sparsity` is the final one.
            rooms: at most so many per tensor; None is its size.

        Raises:
            InputError: a tensor would be left without a live weight, a pattern matches no tensor, or the
                fixed densities alone exceed the budget.
        """
        fixed = self._fixed(tensors, sparsity / final_sparsity if final_sparsity else 1.0)
        totals = [tensor.total for tensor in tensors]
        rooms = totals if rooms is None else rooms
        counted = [i for i in range(len(tensors)) if self.counts_fixed or i not in fixed]
        budget = num_live_at(sparsity, sum(totals[i] for i in counted))
        if self.counts_fixed:
            budget -= sum(fixed.values())
        open_ = [i for i in range(len(tensors)) if i not in fixed]
        least = [0] * len(open_)
        if final_sparsity is not None:  # on the way, fixed counts and the budget are rounded apart
            final = self.num_live(tensors, final_sparsity)
            least = [min(final[i], rooms[i]) for i in open_]
            budget = min(max(budget, sum(least)), sum(totals[i] for i in open_))
        if not 0 <= budget <= sum(totals[i] for i in open_):
            raise InputError(
                f"tensors with a fixed density must leave room for the rest, but at sparsity {sparsity} "
                f"{budget} live weights remain for {len(open_)} other tensors; fix fewer densities, or set "
                'budget="free" to apply the sparsity to the other tensors alone'
            )
        weight = ALLOCATIONS[self.rule]
        budget = min(budget, sum(rooms[i] for i in open_))
        shares = apportion(budget, [weight(tensors[i]) for i in open_], [rooms[i] for i in open_], least)
        counts = {**fixed, **dict(zip(open_, shares, strict=True))}
        for i, tensor in enumerate(tensors):
            if counts[i] == 0:
                raise InputError(
                    f"every tensor must keep a live weight, but {tensor.name} of shape "
                    f"{tuple(tensor.parameter.shape)} gets density 0 at sparsity {sparsity}; lower the "
                    "sparsity, leave the tensor out of parameters, or give it a density of its own"
                )
        return [min(counts[i], rooms[i]) for i in range(len(tensors))]

    def _fixed(self, tensors: Sequence[MaskedTensor], advance: float) -> dict[int, int]:
        """Live weights of the tensors with a fixed density, `advance` (0 … 1) of the way from dense."""
        fixed: dict[int, int] = {}
        for pattern, _ in self.densities:
            if not any(fnmatchcase(tensor.name, pattern) for tensor in tensors):
                raise unknown_name("pruned tensor", pattern, [tensor.name for tensor in tensors])
        for i, tensor in enumerate(tensors):
            for pattern, density in self.densities:
                if fnmatchcase(tensor.name, pattern):
                    fixed[i] = tensor.total - rounded_share((1.0 - density) * advance, tensor.total)
                    break
        return fixed
