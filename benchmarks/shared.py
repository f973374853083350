"""What benchmarks share: where they were run, and figures that survive being cut off."""

import datetime
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import hyperprune


def processor() -> str:
    """The name of the CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine() -> str:
    """Hardware, how busy it was, date and versions in one line."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return (
        f"{processor()}, {os.cpu_count()} cores, load {load}; {datetime.date.today()}; hyperprune "
        f"{hyperprune.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    )


class Results:
    """Figures by name in a JSON file, written after each; with them where they were measured."""

    def __init__(self, path: Path, *, again: bool) -> None:
        self._path, self._again = path, again
        self.figures: dict[str, Any] = json.loads(path.read_text() or "{}") if path.exists() else {}

    def measure(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The figures of that name; computed if they are not there, or all are to be measured again."""
        if name not in self.figures or self._again:
            self.figures[name] = {**compute(), "where": machine()}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(self.figures, indent=1, sort_keys=True) + "\n")
            print(f"{name}: {self.figures[name]}", file=sys.stderr)
        return self.figures[name]
