"""Checkpoint files: one line of header (format, SHA-256 of the rest), then what `torch.save` wrote.

They are written atomically and read with `weights_only=True`, so a checkpoint runs no code.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hyperprune.errors import InputError
from hyperprune.files import write_atomically

_FORMAT = b"hyperprune-checkpoint-1"


class DamagedCheckpointError(InputError):
    """The file is not a whole checkpoint: truncated, altered or something else."""


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Save tensors, numbers, strings and containers of them, atomically and with a checksum."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    payload = buffer.getvalue()
    header = _FORMAT + b" " + hashlib.sha256(payload).hexdigest().encode() + b"\n"
    write_atomically(path, header + payload)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` saved, on the CPU.

    Raises:
        DamagedCheckpointError: the file does not match its checksum, or is no checkpoint.
        InputError: there is no such file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"a checkpoint must be a readable file, got {path}: {error.strerror}") from error
    header, separator, payload = data.partition(b"\n")
    written_format, _, checksum = header.partition(b" ")
    if not separator or written_format != _FORMAT:
        raise DamagedCheckpointError(f"{path} is not a hyperprune checkpoint; give one that a run wrote")
    if hashlib.sha256(payload).hexdigest().encode() != checksum:
        raise DamagedCheckpointError(f"{path} is damaged: its content does not match its checksum")
    return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
