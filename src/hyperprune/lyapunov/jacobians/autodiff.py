"""Any step function `(x_t, state) -> new state`, differentiated by `torch.func` in one batched pass.

The samples of a batch do not act on each other, so one vector-Jacobian product of the whole batch with the
k-th unit vector in every sample gives row k of all samples' Jacobians; `vmap` over k gives all rows.

Axes: see base; parts of a tuple state are flattened and joined to S in order.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from hyperprune.errors import InputError
from hyperprune.lyapunov.jacobians.base import Carry, Layer

State = Tensor | tuple[Tensor, ...]
StepFunction = Callable[[Tensor, State], State]


class AutodiffLayer(Layer):
    """Args:
    function: the step; gets `(x_t, state)` and returns the new state in the form of `state`.
    state: a state, for its form and shapes (B, …).
    hidden_only: J is taken of the first part of the state with the other parts held fixed.
    """

    def __init__(self, function: StepFunction, state: State, *, hidden_only: bool) -> None:
        self._function = function
        self._is_tuple = not isinstance(state, Tensor)
        parts = (state,) if isinstance(state, Tensor) else state
        self._shapes = [tuple(part.shape) for part in parts]
        self._num_free = 1 if hidden_only else len(parts)
        self._sizes = [part[0].numel() for part in parts][: self._num_free]
        self.state_size = sum(self._sizes)
        self._checked = False

    def step(self, x_BI: Tensor, carry: Carry) -> tuple[Tensor, Carry, Tensor]:
        with torch.inference_mode(False):  # which allows no derivatives, neither then nor later
            x_BI, *parts = (part.clone() if part.is_inference() else part for part in (x_BI, *carry))
            return self._differentiated(x_BI, tuple(parts))

    def _differentiated(self, x_BI: Tensor, carry: Carry) -> tuple[Tensor, Carry, Tensor]:
        if not self._checked:
            self._check(x_BI, carry)
            self._checked = True
        free, fixed = carry[: self._num_free], carry[self._num_free :]

        def of_free(*free: Tensor) -> tuple[tuple[Tensor, ...], Carry]:
            new = self._call(x_BI, free + fixed)
            return new[: self._num_free], tuple(part.detach() for part in new)

        versions = [part._version for part in carry]
        with _no_fused_kernels():
            _, pullback, new_carry = torch.func.vjp(  # pyright: ignore[reportAssignmentType]
                of_free, *free, has_aux=True
            )
        self._refuse_in_place(versions, carry)
        unit_SS = torch.eye(self.state_size, dtype=x_BI.dtype, device=x_BI.device)
        batch = x_BI.shape[0]

        def row(unit_S: Tensor) -> Tensor:
            cotangents = [
                part.reshape(shape[1:]).expand(shape)
                for part, shape in zip(unit_S.split(self._sizes), self._shapes, strict=False)
            ]
            gradients = pullback(tuple(cotangents))
            return torch.cat([gradient.reshape(batch, -1) for gradient in gradients], dim=1)

        rows_SBS = torch.func.vmap(row)(unit_SS)
        return new_carry[0], new_carry, rows_SBS.movedim(0, 1)[:, None].detach()

    def build(self, factor: int, coefficients: Tensor, out: Tensor) -> None:
        out.copy_(coefficients)

    def _call(self, x_BI: Tensor, carry: Carry) -> Carry:
        try:
            new = self._function(x_BI, carry if self._is_tuple else carry[0])
        except (RuntimeError, ValueError) as error:  # torch refuses to change what it differentiates by
            if "in-place operation" in str(error):
                raise _in_place_error() from error
            if "dtype" in str(error):
                raise InputError(
                    f"the step function must compute in the type of its inputs, {x_BI.dtype}, and failed "
                    f"with: {error}; convert its weights, pass another dtype, or pass the module itself"
                ) from error
            raise
        parts = tuple(new) if isinstance(new, tuple | list) else (new,)
        got = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
        if isinstance(new, Tensor) == self._is_tuple or got != self._shapes:
            raise InputError(
                f"the step function must return a state of the form it was given, shapes {self._shapes}, got "
                f"{got}; return the new state only, a tensor for a tensor and a tuple for a tuple"
            )
        return parts

    def _check(self, x_BI: Tensor, carry: Carry) -> None:
        """One step under ordinary autograd, to find states cut from the graph or changed in place.

        A part without a gradient is right where it does not depend on the old state (a delay line's last
        input): its rows of J are zero.
        """
        copies = tuple(part.clone() for part in carry)
        versions = [part._version for part in copies]
        with torch.no_grad():
            self._call(x_BI, copies)
        self._refuse_in_place(versions, copies)
        self._refuse_mixed_samples(x_BI, carry)
        with torch.enable_grad():
            leaves = tuple(part.clone().requires_grad_() for part in carry)
            new = self._call(x_BI, leaves)
        cut = [index for index, part in enumerate(new[: self._num_free]) if not part.requires_grad]
        if not cut:
            return
        with torch.no_grad():
            moved = self._call(x_BI, tuple(part + 0.1 for part in carry))
        is_any_differentiable = any(part.requires_grad for part in new)
        for index in cut:
            if not (is_any_differentiable and torch.equal(moved[index], new[index])):
                raise InputError(
                    "the new state must depend on the old one through differentiable operations, part "
                    f"{index} is detached (it carries no gradient); remove detach(), no_grad() and .data "
                    "from the step"
                )

    def _refuse_mixed_samples(self, x_BI: Tensor, carry: Carry) -> None:
        """One pass gives every sample's Jacobian only where no new state depends on another sample."""
        with torch.no_grad():
            moved = tuple(part.clone() for part in (x_BI, *carry))
            for part in moved:
                part[0] += 0.1
            once, again = (self._call(x_BI, carry) for _ in range(2))
            other = self._call(moved[0], moved[1:])
        if not _are_close(once, again):  # a step that draws at random cannot be judged so
            return
        if not _are_close([part[1:] for part in once], [part[1:] for part in other]):
            raise InputError(
                "samples must not act on each other, and a change of the first one's state and input changes "
                "another one's new state; give states with the samples first, (batch, ...), and a step that "
                "mixes none"
            )

    def _refuse_in_place(self, versions: list[int], carry: Carry) -> None:
        if any(part._version != version for part, version in zip(carry, versions, strict=True)):
            raise _in_place_error()


def _are_close(parts: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return all(
        torch.allclose(part, other, rtol=1e-4, atol=1e-6, equal_nan=True)
        for part, other in zip(parts, others, strict=True)
    )


@contextmanager
def _no_fused_kernels() -> Iterator[None]:
    """Without oneDNN, whose fused LSTM has a backward pass that cannot be batched."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


def _in_place_error() -> InputError:
    return InputError(
        "the step function must not change the state it is given, it was modified in place; return a new "
        "tensor instead (h = h + dh, not h += dh)"
    )
