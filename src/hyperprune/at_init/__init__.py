"""Pruning at initialisation: which weights a network keeps before it has been trained.

`hyperprune.prune_at_init` gives masks, `scores` what they come from; criteria are made by name (`get`) or by
the functions here (`jacobian(horizon=8)`).
"""

from hyperprune.at_init.criteria import (
    experimental_lyapunov,
    get,
    grasp,
    grasp_gamma,
    jacobian,
    jacobian_plain,
    kind,
    magnitude,
    names,
    random,
    snip,
    snip_gamma,
    synflow,
    table,
)
from hyperprune.at_init.criterion import Criterion
from hyperprune.at_init.kept import Kept, kept_by_gate
from hyperprune.at_init.prune import load_masks, prune_at_init, save_masks, scores

__all__ = [
    "Criterion",
    "Kept",
    "experimental_lyapunov",
    "get",
    "grasp",
    "grasp_gamma",
    "jacobian",
    "jacobian_plain",
    "kept_by_gate",
    "kind",
    "load_masks",
    "magnitude",
    "names",
    "prune_at_init",
    "random",
    "save_masks",
    "scores",
    "snip",
    "snip_gamma",
    "synflow",
    "table",
]
