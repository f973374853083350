"""Markdown tables, and epochs in words."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def ranges(epochs: Sequence[int]) -> str:
    """Ascending epochs as text: "1, 3 to 5"."""
    parts: list[list[int]] = []
    for epoch in epochs:
        if parts and parts[-1][-1] == epoch - 1:
            parts[-1].append(epoch)
        else:
            parts.append([epoch])
    texts = [f"{part[0]} to {part[-1]}" if len(part) > 1 else str(part[0]) for part in parts]
    return ", ".join(texts)
