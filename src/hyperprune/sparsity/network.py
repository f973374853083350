"""All pruned tensors of a model together with the optimizers that train them.

What every method needs and no method should repeat: zeroing dead weights, gradients and optimizer state
in place, fresh state for grown weights, dense gradients before an update, momentum, random draws that
agree on all ranks, and the masks' part of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool
from torch import Tensor, nn
from torch.optim import Optimizer

from hyperprune.errors import InputError
from hyperprune.sparsity.gradients import DenseGradients
from hyperprune.sparsity.masks import (
    BACKWARD,
    CANDIDATE,
    EXPLORED,
    GROWN,
    LIVE,
    NEGATIVE,
    Block,
    MaskedTensor,
    pack_bits,
    unpack_bits,
)
from hyperprune.sparsity.parameters import matrix_shape, num_gates, select_parameters

# Per weight, with gradient, weight and state at 0, these leave all three at 0.
_KEEP_ZEROS = tuple(
    getattr(torch.optim, name)
    for name in ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta", "ASGD")
)
_FRESH: Mapping[str, Callable[[dict[str, Any]], float]] = {
    "sum": lambda group: group.get("initial_accumulator_value", 0.0),  # Adagrad
    "step_size": lambda group: float(group["lr"]),  # Rprop
}
_FLAGS = {"explored": EXPLORED, "negative": NEGATIVE, "backward": BACKWARD, "candidate": CANDIDATE}


def as_optimizers(value: object) -> list[Optimizer]:
    """One optimizer or several, as a list, after checking that sparse training can step them."""
    optimizers = [value] if isinstance(value, Optimizer) else value
    if not isinstance(optimizers, Sequence) or not all(isinstance(one, Optimizer) for one in optimizers):
        raise InputError(
            f"optimizer must be an optimizer or a list of them, got {value!r}; make it first: "
            "torch.optim.SGD(model.parameters(), lr=…)"
        )
    if any(isinstance(one, torch.optim.LBFGS) for one in optimizers):
        raise InputError("optimizer must step without a closure, got LBFGS; use SGD, Adam or another")
    return list(optimizers)


def _moving_state(optimizer: Optimizer) -> Iterable[str] | None:
    """Keys of state that moves away from 0 by itself; None if any may. Other optimizers can say it."""
    return () if type(optimizer) in _KEEP_ZEROS else getattr(optimizer, "moving_state", None)


class SparseNetwork:
    """Masked tensors, their blocks and their optimizers.

    Args:
        model: its wrappers (DistributedDataParallel, torch.compile) do not show in names.
        optimizers: every pruned tensor belongs to exactly one.
        parameters: names or patterns; None is every weight matrix.
        generator: all random choices come from it; on the CPU.
        by_gate: gates are blocks of their own.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        parameters: Iterable[str] | None,
        generator: torch.Generator,
        *,
        by_gate: bool = False,
    ) -> None:
        self.model = model
        self.optimizers = list(optimizers)
        self.generator = generator
        chosen = select_parameters(model, parameters)
        self.tensors = [
            MaskedTensor(name, parameter, num_gates(model, name), matrix_shape(model, name))
            for name, parameter in chosen.items()
        ]
        self.blocks = [block for tensor in self.tensors for block in tensor.blocks(by_gate=by_gate)]
        self.gradients = DenseGradients(self.tensors, self.blocks)
        self.trains_backward_set = False
        self._masked: dict[str, tuple[int, int]] = {}
        for tensor in self.tensors:
            self._check_owner(tensor)

    @property
    def total(self) -> int:
        return sum(tensor.total for tensor in self.tensors)

    def num_live(self) -> int:
        return sum(tensor.num_live() for tensor in self.tensors)

    def blocks_of(self, tensor: MaskedTensor) -> list[Block]:
        return [block for block in self.blocks if block.tensor is tensor]

    def _check_owner(self, tensor: MaskedTensor) -> None:
        owners = [
            optimizer
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            if any(parameter is tensor.parameter for parameter in group["params"])
        ]
        if len(owners) != 1:
            raise InputError(
                f"every pruned tensor must be trained by one optimizer, but {tensor.name} is in "
                + (
                    "none of its parameter groups; add it, or leave it out of parameters"
                    if not owners
                    else f"those of {len(owners)}; keep it in one"
                )
            )

    def _owner(self, tensor: MaskedTensor) -> tuple[Optimizer, dict[str, Any]]:
        """The optimizer and the parameter group that train a tensor."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                if any(parameter is tensor.parameter for parameter in group["params"]):
                    return optimizer, group
        raise AssertionError(tensor.name)

    def optimizer_of(self, name: str) -> Optimizer:
        """The optimizer that trains the tensor of this name."""
        return self._owner(next(tensor for tensor in self.tensors if tensor.name == name))[0]

    def check_one_ranking(self) -> None:
        """Magnitudes of all tensors must be comparable: float64 is ranked by other bits than the rest.

        Raises:
            InputError: some tensors are float64 and some are not.
        """
        double = [tensor.name for tensor in self.tensors if tensor.parameter.dtype == torch.float64]
        if 0 < len(double) < len(self.tensors):
            raise InputError(
                f"tensors that are ranked together must all be float64 or none, got {', '.join(double)} of "
                "float64 among others; convert the model, or rank each tensor by itself"
            )

    # Zeroing

    def follow_device(self) -> None:
        """Move masks and collected gradients to where the model has been moved."""
        for tensor in self.tensors:
            tensor.follow_device()
        self.gradients.follow_device()

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Gradients of dead weights become exactly 0, in place."""
        for tensor in self.tensors:
            gradient = tensor.parameter.grad
            if gradient is None:
                continue
            if gradient.is_sparse and self._owner(tensor)[1].get("momentum", 0.0) > 0:
                # The buffer would begin as this gradient, and must be dense to be zeroed weight by weight.
                gradient = tensor.parameter.grad = gradient.to_dense()
            if gradient.is_sparse:
                gradient = tensor.parameter.grad = gradient.coalesce()
                self._zero_untrained_rows(tensor, gradient)
            else:
                self._zero_untrained(tensor, gradient)
            self._masked[tensor.name] = (id(gradient), gradient._version)

    def gradients_changed(self) -> bool:
        """Whether gradients may have been computed anew since they were masked.

        They have if they are other tensors. One change in place is what clipping makes; zeroing and a
        backward pass make two.
        """
        for tensor in self.tensors:
            gradient = tensor.parameter.grad
            if gradient is None:
                continue
            masked_id, version = self._masked.get(tensor.name, (0, 0))
            if id(gradient) != masked_id or not 0 <= gradient._version - version <= 1:
                return True
        return False

    def has_gradients(self) -> bool:
        return any(tensor.parameter.grad is not None for tensor in self.tensors)

    def has_unmasked_gradients(self) -> bool:
        """Whether a gradient is not 0 where its weight is not trained."""
        trained = LIVE | BACKWARD if self.trains_backward_set else LIVE
        for tensor in self.tensors:
            gradient = tensor.parameter.grad
            if gradient is not None:
                untrained = tensor.status.bitwise_and(trained) == 0
                if bool(gradient.to_dense()[untrained].any()):
                    return True
        return False

    def _zero_untrained(self, tensor: MaskedTensor, values: Tensor) -> None:
        if self.trains_backward_set:
            tensor.zero_untrained(values)
        else:
            tensor.zero_dead(values)

    def _zero_untrained_rows(self, tensor: MaskedTensor, gradient: Tensor) -> None:
        """The same for the rows that a sparse gradient (of an embedding) holds."""
        status = tensor.status[gradient.indices()[0]]
        flags = LIVE | BACKWARD if self.trains_backward_set else LIVE
        gradient.values().masked_fill_(status.bitwise_and(flags) == 0, 0)

    @torch.no_grad()
    def zero_dead_weights(self) -> None:
        for tensor in self.tensors:
            tensor.zero_dead(tensor.parameter)

    @torch.no_grad()
    def zero_dead_state(self, *, always: bool = True) -> None:
        """Optimizer state of dead weights becomes exactly 0.

        Args:
            always: False skips state that the optimizer is known to leave at 0, given masked gradients.
        """
        for tensor in self.tensors:
            optimizer, _ = self._owner(tensor)
            moving = None if always else _moving_state(optimizer)
            for key, values in self._state(tensor):
                if moving is None or key in moving:
                    self._zero_untrained(tensor, values)

    @torch.no_grad()
    def zero_dead_averages(self) -> None:
        """State that stands for the weights in evaluation is 0 wherever the weights are."""
        for tensor in self.tensors:
            optimizer, _ = self._owner(tensor)
            for key, values in self._state(tensor):
                if key in getattr(optimizer, "evaluated_state", ()):
                    tensor.zero_dead(values)

    @torch.no_grad()
    def settle_averages(self) -> None:
        """After an update, the same state is 0 at dead weights and begins anew at grown ones."""
        for tensor in self.tensors:
            optimizer, _ = self._owner(tensor)
            averages = getattr(optimizer, "evaluated_state", ())
            grown = tensor.status.bitwise_and(GROWN) != 0
            for key, values in self._state(tensor):
                if key in averages:
                    tensor.zero_dead(values)
                    values.copy_(torch.where(grown, tensor.parameter, values))
            if averages:
                self.refresh(tensor, grown)

    def refresh_grown(self) -> None:
        """Grown weights get the state that the optimizer would start with."""
        for tensor in self.tensors:
            self.refresh(tensor, tensor.status.bitwise_and(GROWN) != 0)

    @torch.no_grad()
    def refresh(self, tensor: MaskedTensor, chosen: Bool[Tensor, "..."]) -> None:
        """Chosen weights get the state that the optimizer would start with, where that is not 0."""
        optimizer, group = self._owner(tensor)
        own = getattr(optimizer, "fresh_state", lambda _: {})(tensor.parameter)
        for key, values in self._state(tensor):
            fresh = _FRESH[key](group) if key in _FRESH else own.get(key, 0.0)
            if fresh != 0.0:
                values.masked_fill_(chosen, fresh)

    def _state(self, tensor: MaskedTensor) -> Iterator[tuple[str, Tensor]]:
        """The optimizer's state tensors that hold one number per weight."""
        state = self._owner(tensor)[0].state.get(tensor.parameter, {})
        for key, values in state.items():
            if isinstance(values, Tensor) and values.shape == tensor.parameter.shape and values.ndim > 0:
                if values.is_sparse:  # of steps that were taken before sparse training began
                    state[key] = values.to_dense()
                yield key, state[key]

    @torch.no_grad()
    def rescale_weights(self) -> None:
        """Weights times 1/sqrt(density), per tensor: the live fan-in keeps its variance."""
        for tensor in self.tensors:
            tensor.parameter.mul_((tensor.total / max(1, tensor.num_live())) ** 0.5)

    # Signals

    def momentum_coefficient(self) -> float | None:
        """The optimizer's smoothing of gradients, β in [0, 1); None if some pruned tensor has none."""
        betas = []
        for tensor in self.tensors:
            _, group = self._owner(tensor)
            beta = group["betas"][0] if "betas" in group else group.get("momentum", 0.0)
            if not beta > 0:
                return None
            betas.append(float(beta))
        return max(betas)

    def learning_rate(self, tensor: MaskedTensor) -> float:
        """Of the tensor's parameter group, now."""
        return float(self._owner(tensor)[1]["lr"])

    def momentum(self, block: Block) -> Tensor | None:
        """The optimizer's (N,) smoothed gradient of a block; None before its first step."""
        for key, values in self._state(block.tensor):
            if key in ("momentum_buffer", "exp_avg"):
                return block.of(values)
        return None

    def random(self) -> torch.Generator:
        """A generator on the model's device for one update, the same on every rank."""
        device = self.tensors[0].parameter.device
        seed = torch.randint(2**62, (1,), generator=self.generator, dtype=torch.int64)
        model: Any = self.model
        while model is not None:
            if isinstance(model, nn.parallel.DistributedDataParallel):
                group: Any = model.process_group
                shared = seed.to(device)
                dist.broadcast(shared, dist.get_global_rank(group, 0), group)
                seed = shared.cpu()
            model = getattr(model, "_orig_mod", None)
        return torch.Generator(device=device).manual_seed(int(seed))

    # Masks

    def set_masks(self, masks: Mapping[str, Bool[Tensor, "..."]]) -> None:
        """Begin with these masks: nothing else has ever been live."""
        for tensor in self.tensors:
            tensor.status.zero_()
            tensor.set_live(masks[tensor.name])

    def masks(self) -> dict[str, Bool[Tensor, "..."]]:
        return {tensor.name: tensor.live() for tensor in self.tensors}

    def state_dict(self) -> dict[str, Any]:
        """Masks and flags as packed bits, collected gradients, the generator."""
        tensors = {}
        for tensor in self.tensors:
            entry: dict[str, Any] = {
                "shape": list(tensor.parameter.shape),
                "live": pack_bits(tensor.live()),
            }
            for key, flag in _FLAGS.items():
                bits = tensor.status.bitwise_and(flag) != 0
                if bool(bits.any()):
                    entry[key] = pack_bits(bits)
            tensors[tensor.name] = entry
        return {
            "tensors": tensors,
            "gradients": self.gradients.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Back to a saved state; nothing changes unless every name and shape fits.

        Raises:
            InputError: lists the tensors that are missing, unknown or of another shape.
        """
        saved, here = state["tensors"], {tensor.name: tensor for tensor in self.tensors}
        problems = [f"{name} is missing from the state" for name in here if name not in saved]
        problems += [f"{name} is not a pruned tensor here" for name in saved if name not in here]
        for name, tensor in here.items():
            shape = tuple(tensor.parameter.shape)
            if name in saved and tuple(saved[name]["shape"]) != shape:
                problems.append(f"{name} has shape {tuple(saved[name]['shape'])} there, {shape} here")
        if problems:
            raise InputError(
                f"a saved state must fit the model's tensors, but {'; '.join(problems)}; "
                "build the same model with the same parameters before loading"
            )
        for name, tensor in here.items():
            entry, shape = saved[name], tensor.parameter.shape
            status = torch.zeros(shape, dtype=torch.int8)
            for key, flag in {"live": LIVE, **_FLAGS}.items():
                if key in entry:
                    status.bitwise_or_(unpack_bits(entry[key], shape).view(torch.int8) * flag)
            tensor.status.copy_(status)
        self.gradients.load_state_dict(state["gradients"])
        self.generator.set_state(state["generator"])
