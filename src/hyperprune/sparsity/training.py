"""Sparse training of any model with any optimizer: the loop that a method's rule is driven through.

    loss.backward()
    sparse.mask_gradients()            # so that clipping sees live weights only
    clip_grad_norm_(model.parameters(), 0.25)
    sparse.step()                      # in place of optimizer.step()
    ...
    sparse.end_epoch()                 # after evaluation

Dead weights, their gradients and their optimizer state are exactly 0 after every step, and every change is
in place, so that cuDNN's flat weights and tied weights survive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.optim import Optimizer

from hyperprune.errors import InputError, NumericsError, check_whole
from hyperprune.sparsity.history import History, Summary, Update, explored
from hyperprune.sparsity.method import (
    Method,
    check_flag,
    check_method,
    check_method_sparsity,
    sparsity_of_masks,
)
from hyperprune.sparsity.network import SparseNetwork, as_optimizers
from hyperprune.sparsity.parameters import masks_by_name
from hyperprune.sparsity.schedules import Clock

_STATE_VERSION = 2


class SparseTraining:
    """Prunes a model while its optimizer trains it.

    Args:
        model: any module; wrapped in DistributedDataParallel or torch.compile or not.
        optimizer: one, or several that share the model's parameters. Must not be stepped by hand.
        method: from `hyperprune.methods`, or a `DynamicSparse`.
        sparsity: share of the pruned tensors' weights that is removed, in [0, 1). With `masks` it may be
            left out; given, it must agree with them.
        total_steps: optimizer steps that the method's schedules span, and batches that are planned: one that
            comes as far as `mask_gradients` or `step` and takes no step brings the end nearer all the same.
        generator: a CPU generator; every random choice comes from it. Ranks draw rank 0's numbers.
        parameters: names or shell-style patterns of the tensors to prune; default: every weight matrix,
            embeddings and decoder included, biases not; tied weights once.
        masks: starting masks by parameter name, True is live (from `prune_at_init`). Without
            `parameters`, the tensors they name are the ones pruned.
        rescale_weights: scale the initial weights of each tensor by 1/sqrt(density), which keeps the
            variance of what a unit receives.
        steps_per_epoch: if given, growth that ranks dense gradients before an update at an epoch's end
            collects them in the last steps only, and can average over several. It counts all batches that
            come as far as `mask_gradients` or `step`, also those that are skipped or given up there.

    Raises:
        InputError: a setting breaks a rule, or the method makes no sense with the optimizer.

    To resume, build the same objects, then load the states of model, optimizer and this, in any order.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer],
        method: Method,
        *,
        sparsity: float | None = None,
        total_steps: int,
        generator: torch.Generator,
        parameters: Iterable[str] | None = None,
        masks: Mapping[str, Tensor] | None = None,
        rescale_weights: bool = False,
        steps_per_epoch: int | None = None,
    ) -> None:
        check_method(method)
        check_whole("total_steps", total_steps, 1, example="epochs times batches per epoch")
        if steps_per_epoch is not None:
            check_whole("steps_per_epoch", steps_per_epoch, 1, example="the number of training batches")
        check_flag("rescale_weights", rescale_weights)
        if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
            got = f"one on {generator.device}" if isinstance(generator, torch.Generator) else repr(generator)
            raise InputError(
                f"generator must be a CPU generator, got {got}; torch.Generator().manual_seed(0) makes one"
            )
        if masks is not None:
            masks = masks_by_name(model, masks)
            parameters = list(masks) if parameters is None else parameters
        elif method.at_init is not None:
            raise InputError(
                f"a method with at_init={method.at_init!r} needs its starting masks; pass "
                f"masks=hyperprune.prune_at_init(model, …, criterion={method.at_init!r})"
            )
        elif sparsity is None:
            raise InputError("sparsity must be given unless masks are; 0.67 keeps a third of the weights")
        self.method = method
        self.model = model
        self._optimizers = as_optimizers(optimizer)
        self._clock = Clock(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
        self._network = SparseNetwork(
            model, self._optimizers, parameters, generator, by_gate=method.gates == "separate"
        )
        if masks is not None:
            sparsity = sparsity_of_masks(masks, self._network.tensors, method, sparsity)
        self.sparsity = check_method_sparsity(method, sparsity)
        self._rule = method.build(self._network, self.sparsity, self._clock)
        self._rule.start(masks)
        self._num_final = sum(self._rule.final_counts()) if masks is None else self._network.num_live()
        if rescale_weights:
            self._network.rescale_weights()
        self._rule.ready()
        self._network.zero_dead_weights()
        self._network.zero_dead_state()
        self._masked = False
        self._bad_gradient: str | None = None
        self._unscaled: object = None
        self._finalized = False
        self._history = History(total_steps)

    def mask_gradients(self, scaler: torch.amp.GradScaler | None = None) -> None:
        """Gradients of dead weights become 0, so that clipping sees live weights only.

        Call it once per step, after the last `backward` and before clipping; `step` does it otherwise.
        With a gradient scaler, pass it here or call `scaler.unscale_(optimizer)` before. A batch may be
        given up afterwards: zero the gradients, with a scaler call `scaler.update()`, and go on without
        `step`; what the batch added to gradients that growth sums over several stays. An update at an epoch's
        end is left out if none of the batches that it would rank new weights by had finite gradients.

        Raises:
            InputError: the scaler still counts the batch before as unscaled, so that it would not unscale
                this one.
        """
        self._check_usable()
        # A backward pass leaves numbers at dead weights. Where none is dead, changed gradients tell of it.
        changed = self._masked and self._network.gradients_changed()
        self._mask(scaler, new_batch=changed and self._network.num_live() == self._network.total)

    def _mask(self, scaler: torch.amp.GradScaler | None, *, new_batch: bool) -> None:
        """`mask_gradients`, of a batch that is known to be new or looks so."""
        self._follow_device()
        new_batch |= not self._masked or self._network.has_unmasked_gradients()
        self._unscale(scaler, new_batch=new_batch)
        if new_batch:
            self._clock.num_lost += self._masked  # the batch masked before, which took no step
            decay = self._rule.collects(self._clock)
            self._bad_gradient = None
            if decay is not None:
                most = self._rule.most_grown(self._clock)
                self._bad_gradient = self._network.gradients.add(decay, most)
        self._network.mask_gradients()
        self._masked = True

    def step(self, scaler: torch.amp.GradScaler | None = None) -> None:
        """The optimizer's step; dead weights and their state stay 0; the topology changes when due.

        With a scaler it stands for `scaler.step(optimizer)`: call `scaler.update()` after it as usual. A
        step that the scaler skips, for gradients that are not finite, does not count. Of several optimizers
        it may skip some; the step counts unless growth needed the gradient that one was skipped for.

        Raises:
            InputError: gradients were masked before they were unscaled, or as in `mask_gradients`.
            NumericsError: growth needed a dense gradient that was not finite, and a step was taken with it.
        """
        self._check_usable()
        if not self._masked or self._network.gradients_changed():
            self._mask(scaler, new_batch=False)
        elif self._unscale(scaler, new_batch=False):
            raise InputError(
                "gradients must be unscaled before they are masked and clipped, but mask_gradients() "
                "saw scaled ones; call mask_gradients(scaler), or scaler.unscale_(optimizer) first"
            )
        self._masked = False
        self._rule.before_step(self._clock)
        optimizers = self._step_optimizers(scaler)
        stepped = bool(optimizers)
        if self._bad_gradient is not None:  # for growth the batch is lost if its optimizer was skipped
            stepped = self._network.optimizer_of(self._bad_gradient) in optimizers
        self._clock.num_steps += stepped
        self._clock.num_lost += not stepped
        if stepped and self._bad_gradient is not None:
            raise NumericsError(
                f"the gradient of {self._bad_gradient} must be finite to choose new weights by, but is "
                f"not at step {self._clock.num_steps}; lower the learning rate or clip gradients"
            )
        self._rule.after_step(self._clock)
        self._network.zero_dead_weights()
        self._network.zero_dead_state(always=False)
        if stepped and self._rule.due_after_step(self._clock):
            self._update()
            self._network.mask_gradients()  # of those that have just died

    def end_epoch(self) -> None:
        """An epoch and its evaluation are over; methods that update once an epoch do it now."""
        self._check_usable()
        self._check_between_steps("end_epoch()")
        self._follow_device()
        self._clock.num_epochs += 1
        self._clock.num_lost += self._masked
        self._masked = False
        if self._rule.due_after_epoch(self._clock):
            self._update()
        self._clock.epoch_start = self._clock.num_steps
        self._clock.num_lost_before += self._clock.num_lost
        self._clock.num_lost = 0

    def _check_between_steps(self, what: str) -> None:
        """Masked gradients that wait for their step would no longer fit the masks after an update."""
        if self._masked and self._network.has_gradients():
            raise InputError(
                f"{what} belongs between steps, but masked gradients wait for theirs; call step() first, or "
                "give the batch up with zero_grad(set_to_none=True)"
            )

    def _follow_device(self) -> None:
        self._network.follow_device()
        self._rule.follow_device()

    def _update(self) -> None:
        death_rate = self._rule.death_rate(self._clock)
        with torch.no_grad():
            self._rule.update(self._clock)
            self._history.record(self._network, self._clock, death_rate)
            for block in self._network.blocks:
                block.forget_changes()

    def _unscale(self, scaler: torch.amp.GradScaler | None, *, new_batch: bool) -> bool:
        """Divide gradients by the scale if that has not been done; whether it was done here."""
        if scaler is None or not scaler.is_enabled():
            return False
        states = scaler._per_optimizer_states  # what it has unscaled; update() begins another
        if new_batch and states is self._unscaled:
            raise InputError(
                "gradients must be unscaled batch by batch, but the scaler had no update after the last "
                "batch; call scaler.update() after giving a batch up, as after a step"
            )
        self._unscaled = states
        done = False
        for optimizer in self._optimizers:
            try:
                scaler.unscale_(optimizer)
                done = True
            except RuntimeError as error:
                if "already been called" not in str(error):
                    raise
        return done

    def _step_optimizers(self, scaler: torch.amp.GradScaler | None) -> list[Optimizer]:
        """Step all optimizers; those whose step was not skipped by the scaler."""
        stepped = []

        def note(optimizer: Optimizer, *_: Any) -> None:
            # A fused optimizer is called even so, told by this attribute, and skips the step by itself.
            if not getattr(optimizer, "found_inf", False):
                stepped.append(optimizer)

        for optimizer in self._optimizers:
            if scaler is None:
                optimizer.step()
                stepped.append(optimizer)
                continue
            handle = optimizer.register_step_post_hook(note)
            try:
                scaler.step(optimizer)
            finally:
                handle.remove()
        return stepped

    def _check_usable(self) -> None:
        if self._finalized:
            raise InputError("finalize() has ended this SparseTraining; make a new one to go on")
        if any(getattr(optimizer, "averages_swapped", False) for optimizer in self._optimizers):
            raise InputError(
                "weights are swapped for their averages; leave averaged() before training goes on"
            )

    @property
    def num_steps(self) -> int:
        """Optimizer steps taken."""
        return self._clock.num_steps

    @property
    def death_rate(self) -> float:
        """The share of live weights that an update at this moment would kill."""
        return self._rule.death_rate(self._clock)

    @property
    def masks(self) -> dict[str, Bool[Tensor, "..."]]:
        """Copies of the masks by parameter name, True is live."""
        self._network.follow_device()
        return self._network.masks()

    def summary(self) -> Summary:
        """Live weights, size and density of every pruned tensor and gate; prints as a table."""
        return Summary.of(self._network.tensors)

    @property
    def at_sparsity(self) -> bool:
        """Whether no more weights live than the method leaves in the end; gradual ones get there late."""
        return self._network.num_live() <= self._num_final

    def history(self) -> tuple[Update, ...]:
        """The topology updates so far: densities per tensor and gate, turnover, explored fraction."""
        return tuple(self._history.updates)

    @property
    def num_rewinds(self) -> int:
        """How often the method put the weights back to those of an earlier step; losses begin anew there."""
        return self._rule.num_rewinds

    @property
    def num_updates(self) -> int:
        """Topology updates so far."""
        return self._history.num_updates

    @property
    def turnover(self) -> float:
        """Share of the live weights whose positions an update changed, summed over all updates so far."""
        return self._history.turnover

    @property
    def explored(self) -> float:
        """Share of all prunable weights that have ever been live."""
        return explored(self._network)

    def finalize(self) -> nn.Module:
        """Bake the masks into the weights and let go of the model; returns it, a plain module again.

        The weights are the raw ones. For SNT-ASGD's averages copy the model before, within `averaged()`: dead
        weights are exactly 0 there too.
        """
        self._check_usable()
        self._follow_device()
        self._rule.finalize()
        self._network.zero_dead_weights()
        self._finalized = True
        return self.model

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-exact resumption needs besides the states of model and optimizer.

        Tensors, numbers, texts and containers only; masks take one bit per weight. Save it between steps.
        """
        self._check_between_steps("state_dict()")
        return {
            "version": _STATE_VERSION,
            "method": repr(self.method),
            "sparsity": self.sparsity,
            "clock": {
                "total_steps": self._clock.total_steps,
                "num_steps": self._clock.num_steps,
                "num_epochs": self._clock.num_epochs,
                "epoch_start": self._clock.epoch_start,
                "num_lost": self._clock.num_lost + self._masked,
                "num_lost_before": self._clock.num_lost_before,
            },
            "network": self._network.state_dict(),
            "rule": self._rule.state_dict(),
            "history": self._history.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Back to a saved state; `steps_per_epoch` stays what it is here.

        Raises:
            InputError: the state is of another version, method, sparsity or number of planned steps, or its
                tensors do not fit; nothing has changed.
        """
        expected = {
            "version": _STATE_VERSION,
            "method": repr(self.method),
            "sparsity": self.sparsity,
            "total_steps": self._clock.total_steps,
        }
        there = {**state, "total_steps": state.get("clock", {}).get("total_steps")}
        differences = [
            f"{key} is {there.get(key)!r} there, {value!r} here"
            for key, value in expected.items()
            if there.get(key) != value
        ]
        if differences:
            raise InputError(
                f"a saved state must be of the same method, but {'; '.join(differences)}; build "
                "SparseTraining as it was built then (training may go on beyond total_steps)"
            )
        self._network.load_state_dict(state["network"])
        for key, value in state["clock"].items():
            setattr(self._clock, key, value)
        self._follow_device()
        self._rule.load_state_dict(state["rule"])
        self._history.load_state_dict(state["history"])
        self._masked, self._bad_gradient = False, None
