"""Every error that hyperprune raises on purpose has one root class.

A message states the rule, the value that broke it and the remedy, in that order:
"sparsity must lie in [0, 1), got 1.2; 0.67 keeps a third of the weights".
"""

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of an OSError: the input is right, and needs room


class HyperpruneError(Exception):
    """Root of all errors raised on purpose. The command line turns it into exit code 1."""


class InputError(HyperpruneError, ValueError):
    """The caller's input breaks a rule: a wrong value, name, shape, file or folder. Exit code 2."""


class NumericsError(HyperpruneError, ArithmeticError):
    """A computation met values that are not finite where they must be; the message says where."""


class WorkerError(HyperpruneError, RuntimeError):
    """A worker process died more often than it is retried."""


def unknown_name(kind: str, name: object, allowed: Iterable[str]) -> InputError:
    """The error for a name that is not in a table, with the nearest allowed one as the remedy.

    Args:
        kind: what the name stands for, in the singular ("method", "key in [training]").
        name: what was given.
        allowed: every name that would have been accepted.
    """
    names = sorted(allowed)
    near = get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(f"unknown {kind} {name!r}; {hint}known: {', '.join(names) or 'none'}")


def install(extra: str) -> str:
    """The remedy where the packages of an extra are missing; hyperprune itself is in no index of packages."""
    return f"pip install -e '.[{extra}]' in the project's folder"


@contextmanager
def writing(rule: str, *, remedy: str) -> Iterator[None]:
    """In the block a place is written to that the caller has chosen.

    Raises:
        InputError: it does not take it: the rule, the system's reason and the remedy.
        OSError: the disk is full, where the input is right.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise InputError(f"{rule} ({error.strerror or error}); {remedy}") from error


def check_whole(name: str, value: object, low: int, *, example: str) -> None:
    """`value` must be a whole number of at least `low`; `example` is the remedy."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise InputError(f"{name} must be a whole number of at least {low}, got {value!r}; {example}")
