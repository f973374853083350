"""Named criteria: `at_init.jacobian(horizon=8)`, `at_init.get("jacobian", horizon=8)`.

Every criterion is a frozen dataclass; its `summary`, `paper`, `equation` and `deviations` are data, from
which the documentation's table is made. A new one is one class and one row here.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hyperprune.at_init.criterion import Criterion
from hyperprune.at_init.gradient import SNIP, GraSP, NormalizedGraSP, NormalizedSNIP
from hyperprune.at_init.jacobian import Jacobian, LyapunovSensitivity, PlainJacobian
from hyperprune.at_init.weights import Magnitude, Random, SynFlow
from hyperprune.errors import unknown_name

_TABLE: dict[str, type[Criterion]] = {
    kind.name: kind
    for kind in (
        Random,
        Magnitude,
        SNIP,
        NormalizedSNIP,
        GraSP,
        NormalizedGraSP,
        SynFlow,
        Jacobian,
        PlainJacobian,
        LyapunovSensitivity,
    )
}

random = Random
magnitude = Magnitude
snip = SNIP
snip_gamma = NormalizedSNIP
grasp = GraSP
grasp_gamma = NormalizedGraSP
synflow = SynFlow
jacobian = Jacobian
jacobian_plain = PlainJacobian
experimental_lyapunov = LyapunovSensitivity


def names() -> tuple[str, ...]:
    """All criteria's names, in the order of the documentation."""
    return tuple(_TABLE)


def kind(name: str) -> type[Criterion]:
    """The class of a criterion, with its summary, paper, equation and deviations.

    Raises:
        InputError: no criterion has this name.
    """
    if name not in _TABLE:
        raise unknown_name("criterion", name, _TABLE)
    return _TABLE[name]


def get(name: str, **settings: Any) -> Criterion:
    """The criterion of a name, with some settings other than its defaults.

    Raises:
        InputError: an unknown name or setting (the message names those allowed), or a wrong value.
    """
    criterion = kind(name)
    allowed = [field.name for field in fields(criterion)]
    for setting in settings:
        if setting not in allowed:
            raise unknown_name(f"setting of criterion {name}", setting, allowed)
    return criterion(**settings)


def table() -> str:
    """All criteria as a Markdown table: what each scores, paper, equation, deviations, settings."""
    heads = ("criterion", "score", "paper", "equation", "deviations and readings", "settings")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, criterion in _TABLE.items():
        settings = ", ".join(f"{key}={value!r}" for key, value in criterion().settings().items())
        cells = [
            *(f"`{name}`", criterion.summary, criterion.paper, criterion.equation),
            *("; ".join(criterion.deviations), f"`{settings}`" if settings else ""),
        ]
        # A bare bar would end the cell.
        lines.append("| " + " | ".join(cell.replace("|", "\\|") or "–" for cell in cells) + " |")
    return "\n".join(lines)
