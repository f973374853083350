"""From a recipe to an optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hyperprune.optim import SNTASGD
from hyperprune.tasks.contract import Recipe


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over all parameters of `model`."""
    parameters = model.parameters()
    options: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    match recipe.optimizer:
        case "sgd":
            return torch.optim.SGD(parameters, momentum=recipe.momentum, **options)
        case "snt_asgd":
            return SNTASGD(parameters, momentum=recipe.momentum, **options)
        case "adam":
            # Fused: on a CPU, torch's root of a zero, which a dead weight's second moment is, takes ten times
            # as long as another number's (`benchmarks/sparse_training.py`).
            return torch.optim.Adam(parameters, fused=True, **options)
        case "adamw":
            return torch.optim.AdamW(parameters, fused=True, **options)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, momentum=recipe.momentum, **options)
    raise AssertionError(recipe.optimizer)  # Recipe has checked the name
