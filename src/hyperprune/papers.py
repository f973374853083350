"""The papers behind what was used."""

from __future__ import annotations

from hyperprune import at_init
from hyperprune.errors import InputError


def citation(used: object) -> str:
    """What to cite for a pruning method or a criterion at initialisation, one paper per line.

    Args:
        used: a method (`hp.methods.rigl()`, whose `at_init` is cited with it), a criterion
            (`hp.at_init.snip()`), or anything of yours whose attribute `citation` is a text.

    Raises:
        InputError: it names no paper.
    """
    criterion = getattr(used, "at_init", None)
    papers = [getattr(used, "citation", ""), at_init.kind(criterion).paper if criterion else ""]
    named = [paper for paper in papers if isinstance(paper, str) and paper]
    if not named:
        raise InputError(
            f"a citation is of a method or criterion with a paper, got {used!r}, which names none; try "
            "hp.methods.rigl(), and see CITATION.cff for hyperprune itself"
        )
    return "\n".join(named)
