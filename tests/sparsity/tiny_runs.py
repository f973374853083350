"""A small language model and a training loop that the tests of sparse training share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from hyperprune.optim import SNTASGD
from hyperprune.sparsity import Method, SparseTraining, methods

STEPS_PER_EPOCH = 5


class TinyLM(nn.Module):
    """Embedding, two recurrent layers, decoder; tied on request."""

    def __init__(
        self, *, hidden: int = 6, vocabulary: int = 11, cell: str = "LSTM", tied: bool = False
    ) -> None:
        super().__init__()
        self.encoder = nn.Embedding(vocabulary, hidden)
        self.rnn = getattr(nn, cell)(hidden, hidden, 2)
        self.decoder = nn.Linear(hidden, vocabulary)
        if tied:
            self.decoder.weight = self.encoder.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.decoder(self.rnn(self.encoder(tokens))[0])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(dtype: torch.dtype = torch.float32, **options: Any) -> TinyLM:
    with torch.random.fork_rng():
        model = TinyLM(**options).to(dtype)
    generator = seeded(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype) * 0.3)
    return model


def loss_of(model: nn.Module, step: int) -> Tensor:
    tokens = torch.randint(11, (4, 3), generator=seeded(1000 + step))
    logits = model(tokens)
    return nn.functional.cross_entropy(logits[:-1].flatten(0, 1), tokens[1:].flatten())


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.5, weight_decay=1e-2),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-2),
    "nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 1e-2, weight_decay=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-2, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-2, momentum=0.9, centered=True, weight_decay=1e-2),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-2, initial_accumulator_value=0.1),
    "nadam": lambda p: torch.optim.NAdam(p, 1e-2, weight_decay=1e-2),
    "radam": lambda p: torch.optim.RAdam(p, 1e-2, weight_decay=1e-2),
    "adamax": lambda p: torch.optim.Adamax(p, 1e-2, weight_decay=1e-2),
    "adadelta": lambda p: torch.optim.Adadelta(p, 1.0, weight_decay=1e-2),
    "adam_fused": lambda p: torch.optim.Adam(p, 1e-2, weight_decay=1e-2, fused=True),
    "rprop": lambda p: torch.optim.Rprop(p, 1e-2),
    "asgd": lambda p: torch.optim.ASGD(p, 1e-2, t0=3, weight_decay=1e-2),
    "snt_asgd": lambda p: SNTASGD(p, 0.5, momentum=0.5, weight_decay=1e-2),
}


def quick(name: str, **settings: Any) -> Method:
    """A method of this name that updates often enough for a run of some twenty steps."""
    every = methods.kind(name).__dataclass_fields__.get("update_every")
    if every is not None and every.default == 100:
        settings = {"update_every": 3, **settings}
    return methods.get(name, **settings)


def sparsity_for(name: str, sparsity: float = 0.6) -> float:
    return 0.0 if name == "dense" else sparsity


class Run:
    """Model, optimizer and sparse training, stepped together."""

    def __init__(
        self,
        method: Method,
        *,
        optimizer: str = "momentum",
        model: nn.Module | None = None,
        sparsity: float = 0.6,
        total_steps: int = 20,
        clip: float | None = 0.25,
        trigger_at: int | None = 4,
        **options: Any,
    ) -> None:
        self.model = tiny() if model is None else model
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.sparse = SparseTraining(
            self.model,
            self.optimizer,
            method,
            sparsity=sparsity_for(method.name, sparsity),
            total_steps=total_steps,
            generator=seeded(7),
            **options,
        )
        self.clip, self.trigger_at = clip, trigger_at

    def step(self) -> None:
        step = self.sparse.num_steps
        if step == self.trigger_at and isinstance(self.optimizer, SNTASGD):
            self.optimizer.trigger()
        self.optimizer.zero_grad()
        loss_of(self.model, step).backward()
        if self.clip is not None:
            self.sparse.mask_gradients()
            clip_grad_norm_(self.model.parameters(), self.clip)
        self.sparse.step()
        if self.sparse.num_steps % STEPS_PER_EPOCH == 0:
            self.sparse.end_epoch()

    def steps(self, count: int) -> Iterator[int]:
        for _ in range(count):
            self.step()
            yield self.sparse.num_steps

    def run(self, count: int) -> Run:
        for _ in self.steps(count):
            pass
        return self

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sparse": self.sparse.state_dict(),
        }


def train_with_lost(run: Run, lost: set[int], how: str, *, num_batches: int = 20) -> Run:
    """So many batches, in epochs; those lost are "skipped" by a gradient scaler or "given up"."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0, enabled=how == "skipped")
    for number in range(num_batches):
        run.optimizer.zero_grad()
        loss = loss_of(run.model, number)
        scaler.scale(loss * float("inf") if number in lost else loss).backward()
        if how == "given up" and number in lost:
            run.sparse.mask_gradients()
            run.optimizer.zero_grad()
        else:
            if how == "given up":
                run.sparse.mask_gradients()
            run.sparse.step(scaler)
            scaler.update()
        if number % STEPS_PER_EPOCH == STEPS_PER_EPOCH - 1:
            run.sparse.end_epoch()
    return run


def assert_same(left: Any, right: Any, where: str = "state") -> None:
    """Equal to the bit, through containers."""
    assert type(left) is type(right), where
    if isinstance(left, Tensor):
        assert left.shape == right.shape, where
        assert left.dtype == right.dtype, where
        assert torch.equal(left, right), where
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_same(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_same(one, other, f"{where}[{index}]")
    else:
        assert left == right, where
