"""Where segments run: in this process, in spawned workers, on Ray. The result is the same, bit for bit.

Every executor calls the same segment function, `training.segment.advance`, and keeps the same rule for
workers that die: their segment begins again, from its last checkpoint, twice; then it is reported lost.
"""

from hyperprune.hypersearch.executor.choose import (
    EXECUTORS,
    Execution,
    check_device,
    check_execution,
    make_executor,
    num_places,
)
from hyperprune.hypersearch.executor.contract import MAX_RETRIES, Executor, InProcess, Job, Lost
from hyperprune.hypersearch.executor.local import Workers

__all__ = [
    "EXECUTORS",
    "MAX_RETRIES",
    "Execution",
    "Executor",
    "InProcess",
    "Job",
    "Lost",
    "Workers",
    "check_device",
    "check_execution",
    "make_executor",
    "num_places",
]
