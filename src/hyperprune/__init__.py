"""hyperprune: find the best way to prune a recurrent network, with the Lyapunov spectrum of every candidate.

Names are imported when they are first used, so that `import hyperprune` and the command line's help do
not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hyperprune import at_init as at_init
    from hyperprune import models as models
    from hyperprune.at_init import prune_at_init as prune_at_init
    from hyperprune.hypersearch.dimensions import Range as Range
    from hyperprune.hypersearch.extend import extend as extend
    from hyperprune.hypersearch.joining import load_table as load_table
    from hyperprune.hypersearch.replay import replay as replay
    from hyperprune.hypersearch.search import SearchResult as SearchResult
    from hyperprune.hypersearch.search import search as search
    from hyperprune.hypersearch.search import train as train
    from hyperprune.hypersearch.space import Branch as Branch
    from hyperprune.hypersearch.space import Configuration as Configuration
    from hyperprune.hypersearch.space import Space as Space
    from hyperprune.hypersearch.strategies import LSH as LSH
    from hyperprune.hypersearch.strategies import Full as Full
    from hyperprune.hypersearch.strategies import Hyperband as Hyperband
    from hyperprune.hypersearch.strategies import SuccessiveHalving as SuccessiveHalving
    from hyperprune.lyapunov import lyapunov_spectrum as lyapunov_spectrum
    from hyperprune.optim import SNTASGD as SNTASGD
    from hyperprune.optim import NonMonotonic as NonMonotonic
    from hyperprune.papers import citation as citation
    from hyperprune.sparsity import methods as methods
    from hyperprune.sparsity.methods import DynamicSparse as DynamicSparse
    from hyperprune.sparsity.training import SparseTraining as SparseTraining
    from hyperprune.spectra import LyapunovSpectrum as LyapunovSpectrum
    from hyperprune.spectra import spectrum_distance as spectrum_distance
    from hyperprune.tasks.contract import BatchLoss as BatchLoss
    from hyperprune.tasks.contract import Recipe as Recipe
    from hyperprune.tasks.contract import RecurrentRun as RecurrentRun
    from hyperprune.tasks.contract import Task as Task
    from hyperprune.tasks.registry import load_task as load_task
    from hyperprune.training.load import load_model as load_model

_HOMES = {
    "Range": "hypersearch.dimensions",
    "SearchResult": "hypersearch.search",
    "search": "hypersearch.search",
    "extend": "hypersearch.extend",
    "train": "hypersearch.search",
    "Branch": "hypersearch.space",
    "Configuration": "hypersearch.space",
    "Space": "hypersearch.space",
    "LSH": "hypersearch.strategies",
    "Full": "hypersearch.strategies",
    "Hyperband": "hypersearch.strategies",
    "SuccessiveHalving": "hypersearch.strategies",
    "load_table": "hypersearch.joining",
    "replay": "hypersearch.replay",
    "lyapunov_spectrum": "lyapunov",
    "prune_at_init": "at_init",
    "SNTASGD": "optim",
    "NonMonotonic": "optim",
    "citation": "papers",
    "DynamicSparse": "sparsity.methods",
    "SparseTraining": "sparsity.training",
    "LyapunovSpectrum": "spectra",
    "spectrum_distance": "spectra",
    "BatchLoss": "tasks.contract",
    "Recipe": "tasks.contract",
    "RecurrentRun": "tasks.contract",
    "Task": "tasks.contract",
    "load_task": "tasks.registry",
    "load_model": "training.load",
}
_MODULES = {"at_init": "at_init", "methods": "sparsity.methods", "models": "models"}

__all__ = [  # noqa: PLE0604  # the names of both tables
    "__version__",
    *_HOMES,  # pyright: ignore[reportUnsupportedDunderAll]
    *_MODULES,  # pyright: ignore[reportUnsupportedDunderAll]
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"hyperprune.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"hyperprune.{_MODULES[name]}")
    raise AttributeError(f"module 'hyperprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
