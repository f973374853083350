"""Seed and thread count of a segment, without a trace of them in the process afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hyperprune.errors import InputError
from hyperprune.rng import derive_seed, seed_global


@contextmanager
def isolated(*, device: str, threads: int, seed: int) -> Iterator[None]:
    """Run a block under its own global generators and thread count.

    Args:
        device: whose generator is isolated besides the CPU's.
        threads: CPU threads inside the block.
        seed: the run's; the block begins with a generator derived from it (dropout draws from it).

    Raises:
        InputError: a CUDA device where there is none.
    """
    kind = torch.device(device)
    if kind.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device!r} needs a CUDA GPU and none is available; use 'cpu'")
    before = torch.get_num_threads()
    devices = [kind] if kind.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        seed_global(derive_seed(seed, "dropout"), devices)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The global generators' states, for a checkpoint."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put back what `random_state` gave; a GPU's generator is not touched if it has that state."""
    torch.set_rng_state(state["cpu"])
    # Setting it makes cuDNN's dropout begin anew, see `begin_dropout_anew`.
    if device.type == "cuda" and not torch.equal(torch.cuda.get_rng_state(device), state["cuda"]):
        torch.cuda.set_rng_state(state["cuda"], device)


def begin_dropout_anew(device: torch.device) -> None:
    """Let cuDNN's dropout between recurrent layers draw from the device's generator again.

    It has a buffer of its own, which no checkpoint holds and which is filled from the generator after the
    generator's state was set.
    """
    if device.type == "cuda":
        torch.cuda.set_rng_state(torch.cuda.get_rng_state(device), device)
