"""One seed, many named and independent generators.

Every random choice draws from a generator derived from the run's seed and the names of the
purpose, so adding a consumer never shifts the numbers that another one sees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on `seed` and on every name, in order (SHA-256 of their text)."""
    text = "\x1f".join([str(seed), *(f"{type(name).__name__}:{name}" for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_global(seed: int, devices: Iterable[torch.device | str]) -> None:
    """Seed torch's global generators of the CPU and of these GPUs, and of no others."""
    import torch

    torch.default_generator.manual_seed(seed)
    for device in devices:
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def generator(seed: int, *names: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator for one purpose: `generator(seed, "weights")`, `generator(seed, "round", 2)`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))
