"""The settings of a measurement, checked once, and what follows from them."""

import dataclasses
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from hyperprune.errors import InputError, unknown_name
from hyperprune.lyapunov.jacobians import module_behind


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure; see `lyapunov_spectrum` for the meaning of each.

    Raises:
        InputError: a value breaks its rule.
    """

    batch_size: int
    jacobian: str
    num_exponents: int | None
    qr_interval: int
    convention: str
    dtype: torch.dtype
    device: torch.device
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.convention not in ("forward", "lsh"):
            raise unknown_name("convention", self.convention, ("forward", "lsh"))
        if self.jacobian not in ("full", "hidden"):
            raise unknown_name("jacobian", self.jacobian, ("full", "hidden"))
        if self.convention == "lsh" and self.jacobian == "full":
            raise InputError(
                'convention "lsh" is of the hidden state, got jacobian="full"; leave `jacobian` out'
            )
        for name in ("batch_size", "qr_interval", "num_exponents"):
            if (value := getattr(self, name)) is not None:
                check_whole(name, value)
                object.__setattr__(self, name, int(value))  # a saved spectrum holds no number of numpy's
        if self.batch_size < 1:
            raise InputError(
                f"a batch must hold at least 1 sample, got {self.batch_size}; inputs are (time, batch, "
                "features)"
            )
        if self.convention == "lsh" and self.num_exponents is not None:
            raise InputError(
                'convention "lsh" leaves exponents in the order of the factorisation, of which the first are '
                f"not the largest, got num_exponents={self.num_exponents}; leave `num_exponents` out"
            )
        if self.qr_interval < 1:
            raise InputError(
                f"qr_interval must be at least 1, got {self.qr_interval}; 1 factorises at every step"
            )
        if self.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"dtype must be torch.float32 or torch.float64, got {self.dtype}; None follows the module"
            )

    @property
    def hidden_only(self) -> bool:
        return self.jacobian == "hidden"

    @property
    def transposed(self) -> bool:
        """Whether frames go through Jᵀ and start from the identity."""
        return self.convention == "lsh"


def check_whole(name: str, value: Any) -> None:
    """`value` must be a whole number, of Python or numpy."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name} must be a whole number, got {value!r}; round it")


def working_dtype(module: Any, state: Any) -> tuple[torch.dtype, tuple[str, ...]]:
    """What a module (or a callable with this state) is computed in, with a note where that is not its own."""
    own = _first_tensor(module, state).dtype
    if own in (torch.float16, torch.bfloat16):
        name = str(own).removeprefix("torch.")
        return torch.float32, (f"the module is {name}; its spectrum was computed in float32",)
    return own, ()


def device_of(module: Any, state: Any) -> torch.device:
    """Where a module (or a callable's state) lives."""
    return _first_tensor(module, state).device


def as_tensors_name_it(device: torch.device | str) -> torch.device:
    """A device as its tensors name theirs: "cuda:0" for "cuda", "cpu" for "cpu:0"."""
    return torch.empty(0, device=device).device


def _first_tensor(module: Any, state: Any) -> Tensor:
    if (owner := module_behind(module)) is not None:
        for parameter in owner.parameters():
            return parameter
    parts = state if isinstance(state, tuple | list) else (state,)
    return next((part for part in parts if isinstance(part, Tensor)), torch.empty(0))
