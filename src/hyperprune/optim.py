"""SNT-ASGD: SGD that averages each weight over the steps since that weight was last grown, once triggered.

References:
    Liu et al. 2021, Selfish sparse RNN training with dynamic sparsity (arXiv 2101.09048), SNT-ASGD.
    Merity et al. 2018, Regularizing and optimizing LSTM language models (arXiv 1708.02182), algorithm 1.

In the paper's letters: w the weight, ŵ its average, m_i the number of steps since weight i was grown.
What is kept is the step at which averaging of weight i began, so that a step has nothing to count up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from hyperprune.errors import InputError, NumericsError

_WIDE_STATE = ("average", "start")  # never of less than single precision
_CHUNK = 1 << 16  # weights updated at once on a CPU: temporaries stay in the cache


class _Slot(NamedTuple):
    """A parameter, or a run of its weights, with gradient and state."""

    weight: Tensor
    gradient: Tensor | None
    momentum: Tensor | None
    average: Tensor | None
    start: Tensor | None
    num_averaged: int

    def parts(self) -> Iterator[_Slot]:
        """Runs of weights that fit the cache; the whole where storage does not allow views."""
        *tensors, num_averaged = self
        if not all(tensor is None or tensor.is_contiguous() for tensor in tensors):
            yield self
            return
        flat = [None if tensor is None else tensor.detach().view(-1) for tensor in tensors]
        for start in range(0, self.weight.numel(), _CHUNK):
            runs = (None if run is None else run[start : start + _CHUNK] for run in flat)
            yield _Slot(*runs, num_averaged)  # pyright: ignore[reportCallIssue, reportArgumentType]


def _as_one(group: Mapping[str, Any], parameters: list[Tensor]) -> bool:
    return all(p.is_cuda for p in parameters) if group["foreach"] is None else group["foreach"]


def _descend(group: Mapping[str, Any], slots: list[_Slot]) -> None:
    """w ← w - lr·v, with v ← momentum·v + gradient + weight_decay·w."""
    weights: Any = [slot.weight for slot in slots]
    velocities: Any = [slot.gradient for slot in slots]
    if group["weight_decay"]:
        velocities = torch._foreach_add(velocities, weights, alpha=group["weight_decay"])
    if group["momentum"]:
        buffers: Any = [slot.momentum for slot in slots]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, velocities)
        velocities = buffers
    torch._foreach_add_(weights, velocities, alpha=-group["lr"])


def _average(slots: list[_Slot]) -> None:
    """m ← steps averaged - start, ŵ ← ŵ + (w - ŵ)/m, weight by weight."""
    weights: Any = [slot.weight for slot in slots]
    averages: Any = [slot.average for slot in slots]
    starts: Any = [slot.start for slot in slots]
    ages: Any = torch._foreach_neg(starts)
    torch._foreach_add_(ages, [slot.num_averaged for slot in slots])
    weights = [weight.to(average.dtype) for weight, average in zip(weights, averages, strict=True)]
    torch._foreach_addcdiv_(averages, torch._foreach_sub(weights, averages), ages)


class SNTASGD(Optimizer):
    """Sparse non-monotonically triggered averaged SGD.

    Before `trigger` it is `torch.optim.SGD`. From then on every step also moves a weight's average
    towards the weight by 1/m, m counting the steps since that weight was grown (or since the trigger), so
    that the average is the plain mean of its values; it is kept in single precision at least.
    `SparseTraining` clears the average of a weight that dies or grows, like any other optimizer state, and
    lets a grown one's count begin anew.

    Args:
        params: parameters or parameter groups.
        lr: learning rate, above 0.
        momentum: of SGD, in [0, 1).
        weight_decay: L2 penalty, at least 0.
        foreach: one kernel for all parameters of a group, which is faster on a GPU and slower on a CPU;
            None chooses by the parameters' device. Results are the same to the bit.

    Deviation: the paper resets averages of grown weights to their current value, which is 0 here as well.
    """

    # What SparseTraining asks of an optimizer it does not know: which state of a weight moves away from 0
    # without a gradient, which stands for the weight in evaluation, and which entry of a group is state.
    moving_state = ()
    evaluated_state = ("average",)
    group_state = ("triggered",)

    _swapped = False  # on the class, because copies and pickles of an optimizer hold groups and state only

    def __init__(
        self,
        params: Any,
        lr: float,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
    ) -> None:
        if not (lr > 0 and math.isfinite(lr)):
            raise InputError(f"lr must be above 0 and finite, got {lr}; the paper uses 40 for a stacked LSTM")
        if not 0 <= momentum < 1:
            raise InputError(f"momentum must lie in [0, 1), got {momentum}; 0 is plain SGD")
        if not (weight_decay >= 0 and math.isfinite(weight_decay)):
            raise InputError(f"weight_decay must be at least 0 and finite, got {weight_decay}; 0 is none")
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "weight_decay": weight_decay,
                "triggered": False,
                "foreach": foreach,
            },
        )

    @property
    def triggered(self) -> bool:
        """Whether averaging has begun."""
        return any(group["triggered"] for group in self.param_groups)

    @property
    def averages_swapped(self) -> bool:
        """Whether the parameters hold averages at the moment."""
        return self._swapped

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As any optimizer's; parameters added after the trigger are averaged from their first step on."""
        super().add_param_group({"triggered": self.triggered, **param_group})

    def trigger(self) -> None:
        """Start to average from the next step on; once started, nothing."""
        for group in self.param_groups:
            group["triggered"] = True

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of SGD, and of averaging once triggered."""
        self._check_not_swapped("step()")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            for p in parameters:
                self._prepare(group, p)
            slots = [self._slot(p) for p in parameters]
            batches = (
                [slots] if _as_one(group, parameters) else [[part] for slot in slots for part in slot.parts()]
            )
            for batch in batches:
                if batch:
                    _descend(group, batch)
                if batch and group["triggered"]:
                    _average(batch)
        return loss

    def _prepare(self, group: Mapping[str, Any], p: Tensor) -> None:
        """Check the gradient and make the state that this step needs."""
        assert p.grad is not None
        if p.grad.is_sparse:
            raise InputError(
                "SNTASGD needs dense gradients, got a sparse one; build nn.Embedding with sparse=False"
            )
        state = self.state[p]
        if group["momentum"] and "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        if group["triggered"]:
            if "average" not in state:
                # Half precision could not tell one step from the next beyond a few hundred.
                wide = p.dtype if p.dtype == torch.float64 else torch.float32
                for name in _WIDE_STATE:
                    state[name] = torch.zeros_like(p, dtype=wide)
                state["num_averaged"] = 0
            state["num_averaged"] += 1

    def _slot(self, p: Tensor) -> _Slot:
        state = self.state[p]
        return _Slot(
            weight=p,
            gradient=p.grad,
            momentum=state.get("momentum_buffer"),
            average=state.get("average"),
            start=state.get("start"),
            num_averaged=state.get("num_averaged", 0),
        )

    def fresh_state(self, p: Tensor) -> dict[str, float]:
        """What SparseTraining gives a weight of `p` that has just been grown, where that is not 0."""
        return {"start": float(self.state[p].get("num_averaged", 0))}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the parameters hold their averages, for evaluation; before the trigger nothing changes.

        Values are swapped in place, tensor by tensor, so no copy of the model is needed, only one of the
        largest tensor; of parameters in half precision, whose averages are in single, all are copied.
        Training within raises `InputError`.
        """
        self._check_not_swapped("averaged()")
        self._swap()
        self._swapped = True
        try:
            yield
        finally:
            self._swap()
            self._swapped = False

    @torch.no_grad()
    def _swap(self) -> None:
        for state, p in self._averaging():
            average = state["average"]
            if "raw" in state:
                p.copy_(state.pop("raw"))
                continue
            raw = p.detach().clone()
            p.copy_(average)
            if average.dtype == p.dtype:
                average.copy_(raw)
            else:  # the way through p would round it
                state["raw"] = raw

    def _averaging(self) -> Iterable[tuple[dict[str, Any], Tensor]]:
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state.get(p, {})
                if "average" in state:
                    yield state, p

    def _check_not_swapped(self, what: str) -> None:
        if self._swapped:
            raise InputError(f"{what} must not be called within averaged(); leave its block first")

    def state_dict(self) -> dict[str, Any]:
        """As any optimizer's; not within `averaged`, where weights and averages have changed places."""
        self._check_not_swapped("state_dict()")
        return super().state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As any optimizer's, but averages keep their precision; torch would round them to the weights'.

        Not within `averaged`.
        """
        self._check_not_swapped("load_state_dict()")
        super().load_state_dict(dict(state_dict))
        saved_ids = [index for group in state_dict["param_groups"] for index in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        for index, p in zip(saved_ids, parameters, strict=True):
            saved = state_dict["state"].get(index, {})
            for name in saved.keys() & set(_WIDE_STATE):
                self.state[p][name] = saved[name].to(p.device, copy=True)


class NonMonotonic:
    """Fires once the validation loss is worse than the best one before the last `patience` losses.

    Args:
        patience: n of Merity et al. 2018, algorithm 1; at least 1.

    The authors' code is followed, `loss > min(losses[:-n])`; the algorithm as printed can be read otherwise.
    """

    def __init__(self, patience: int = 5) -> None:
        if not isinstance(patience, int) or isinstance(patience, bool) or patience < 1:
            raise InputError(
                f"patience must be a whole number of at least 1, got {patience!r}; the paper uses 5"
            )
        self.patience = patience
        self.losses: list[float] = []
        self.triggered = False

    def should_trigger(self, loss: float) -> bool:
        """Take note of a validation loss; True exactly once, at the first that fires.

        Raises:
            NumericsError: the loss is not finite, which no later loss could be worse than.
        """
        if not math.isfinite(loss):
            raise NumericsError(f"a validation loss must be finite, got {loss}; stop training when it is not")
        earlier = self.losses[: -self.patience]
        fires = not self.triggered and bool(earlier) and loss > min(earlier)
        self.losses.append(float(loss))
        self.triggered = self.triggered or fires
        return fires

    def state_dict(self) -> dict[str, Any]:
        return {"patience": self.patience, "losses": list(self.losses), "triggered": self.triggered}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.patience = state["patience"]
        self.losses = list(state["losses"])
        self.triggered = state["triggered"]
