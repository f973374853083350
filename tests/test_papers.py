"""What is cited for a method or a criterion."""

import pytest

import hyperprune as hp
from hyperprune.errors import InputError
from tiny_task import TinyTask

SNIP = "Lee et al. 2019, SNIP (arXiv 1810.02340)"


def test_a_citation_names_the_papers_of_a_method_and_of_the_criterion_that_it_starts_from():
    assert hp.citation(hp.methods.rigl()) == "Evci et al. 2020, Rigging the lottery (arXiv 1911.11134)"
    assert hp.citation(hp.at_init.snip()) == SNIP
    assert hp.citation(hp.methods.rigl(at_init="snip")) == f"{hp.citation(hp.methods.rigl())}\n{SNIP}"
    assert hp.citation(hp.methods.rigl(at_init="random")) == hp.citation(hp.methods.rigl())


def test_a_citation_of_ones_own_is_told():
    task = TinyTask()
    task.citation = "Poincaré 1890"  # pyright: ignore[reportAttributeAccessIssue]
    assert hp.citation(task) == "Poincaré 1890"


@pytest.mark.parametrize(
    "used", [hp.methods.get("dense"), hp.at_init.random(), TinyTask(), "rigl", hp.methods.rigl]
)
def test_what_names_no_paper_is_refused(used):
    with pytest.raises(InputError, match=r"a citation is of a method or criterion .*, which names none; try"):
        hp.citation(used)
