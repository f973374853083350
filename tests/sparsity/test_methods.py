"""Methods by name: settings, errors, papers, and the page that is made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hyperprune.errors import InputError
from hyperprune.sparsity import DynamicSparse, Method, methods
from hyperprune.sparsity.method import check_method

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"

PRESETS = {
    "set_": {"allocation": "er", "death": "set", "growth": "random", "redistribution": "none"},
    "dsr": {"death": "threshold", "growth": "random", "redistribution": "nonzeros"},
    "snfs": {"death": "magnitude", "growth": "momentum", "redistribution": "momentum", "decay": "cosine"},
    "rigl": {
        "allocation": "er",
        "death": "magnitude",
        "growth": "gradient",
        "redistribution": "none",
        "death_rate": 0.3,
        "decay": "cosine",
        "decay_end": 0.75,
        "stop": 0.75,
        "update_every": 100,
    },
    "selfish_rnn": {
        "allocation": "uniform",
        "death": "magnitude",
        "growth": "random",
        "redistribution": "none",
        "gates": "exchange",
        "decay": "cosine",
        "update_every": "epoch",
    },
    "gmp": {"end": 0.75},
    "narang": {"end": 0.75},
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_their_papers_settings(name: str) -> None:
    settings = methods.get(name).settings()
    assert {key: settings[key] for key in PRESETS[name]} == PRESETS[name]


def test_all_methods_of_the_field_are_there_under_their_names() -> None:
    assert set(methods.names()) == {
        *("dense", "static", "set_", "deep_r", "dsr", "snfs", "rigl", "top_kast", "selfish_rnn"),
        *("gmp", "narang", "iterative_magnitude", "lottery_ticket", "dynamic_sparse"),
    }
    for name in methods.names():
        assert getattr(methods, name) is methods.kind(name)


@pytest.mark.parametrize("name", methods.names())
def test_settings_make_an_equal_method_again(name: str) -> None:
    method = methods.get(name)
    assert methods.get(name, **method.settings()) == method
    assert method.name == name
    assert method.summary
    assert method.citation == method.paper


def test_settings_as_a_file_gives_them_are_understood() -> None:
    method = methods.get(
        "dynamic_sparse",
        allocation="er",
        densities={"a*": 1, "b": 0.5},
        keep_dense=["encoder.weight"],
        death_rate=1,
    )
    assert method == DynamicSparse(
        allocation="er", densities=(("a*", 1.0), ("b", 0.5)), keep_dense=("encoder.weight",), death_rate=1.0
    )
    assert hash(method) == hash(methods.get("dynamic_sparse", **method.settings()))


def test_an_unknown_method_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"unknown method 'rigel'; did you mean 'rigl'.*known: deep_r"):
        methods.get("rigel")


def test_an_unknown_setting_is_an_error_that_names_the_allowed_ones() -> None:
    with pytest.raises(
        InputError, match=r"unknown setting of method rigl 'death'?.*did you mean 'death_rate'"
    ):
        methods.get("rigl", deathrate=0.3)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"death": "magnitud"}, "unknown death 'magnitud'; did you mean 'magnitude'"),
    ({"growth": "none"}, "unknown growth 'none'; .*known: gradient, momentum, random"),
    ({"redistribution": None}, "unknown redistribution None"),
    ({"allocation": "erk"}, "unknown allocation 'erk'"),
    ({"decay": "cos"}, "unknown decay 'cos'"),
    ({"gates": "both"}, "unknown gates 'both'"),
    ({"budget": "some"}, "unknown budget 'some'"),
    ({"death_rate": 1.5}, r"death_rate must lie in \[0, 1\], got 1.5; 0.5 kills half"),
    ({"death_rate": "0.5"}, r"death_rate must lie in \[0, 1\], got '0.5'"),
    ({"death_rate": float("nan")}, "death_rate must lie in"),
    ({"decay_end": 0}, r"decay_end must lie in \(0, 1\], got 0"),
    ({"stop": 2.0}, r"stop must lie in \[0, 1\]"),
    ({"densities": 0.5}, "densities must map patterns to densities, got 0.5"),
    ({"densities": [0.5]}, r"densities must map patterns to densities, got \[0.5\]"),
    ({"densities": "decoder.weight"}, "densities must map patterns to densities, got 'decoder.weight'"),
    ({"keep_dense": 5}, "keep_dense must be patterns of names, got 5"),
    ({"densities": {"a": 0.0}}, r"the density of 'a' must lie in \(0, 1\], got 0.0"),
    ({"update_every": "weekly"}, "update_every must be a number of steps"),
    ({"first_step": -1}, "first_step must be a whole number of at least 0"),
    ({"first_step": 5, "last_step": 4}, "last_step must be a whole number of at least 5"),
    ({"regrow_killed": "False"}, "regrow_killed must be True or False, got 'False'"),
    ({"gradient_batches": 2}, "gradient_batches needs growth=\"gradient\", got growth='random'; remove"),
    (
        {"growth": "gradient", "update_every": 3, "gradient_batches": 4},
        "gradient_batches must be at most the steps between updates, 3, got 4",
    ),
    (
        {"decay": "constant", "final_death_rate": 0.1},
        'final_death_rate needs decay="linear" or "cosine", got',
    ),
    ({"decay": "constant", "decay_end": 0.5}, 'decay_end needs decay="linear" or "cosine", got decay="const'),
    (
        {"death": "threshold", "threshold_at_once": True, "threshold_start": 0.5},
        "threshold_start needs a threshold that moves, got threshold_at_once; remove threshold_start",
    ),
    ({"threshold_at_once": True}, "threshold_at_once needs death=\"threshold\", got death='magnitude'"),
    ({"death": "threshold", "threshold_start": 0.0}, r"threshold_start must lie in \(0, inf\)"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_a_wrong_setting_is_refused_with_rule_value_and_remedy(
    settings: dict[str, Any], message: str
) -> None:
    # Set behind the back of the type checker that tests run with, which users do not.
    method = DynamicSparse()
    for name, value in settings.items():
        object.__setattr__(method, name, value)
    with pytest.raises(InputError, match=message):
        method.__post_init__()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("rigl", r"method must be one of hyperprune.methods .*, got 'rigl'; hyperprune.methods.get\("),
        (methods.rigl, r"method must be made first, got the class RigL; call it: rigl\(\)"),
    ],
)
def test_a_name_or_a_class_in_place_of_a_method_is_refused_with_what_to_write(
    method: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_method(method)


def test_densities_may_come_from_an_iterator() -> None:
    assert methods.static(densities=zip(["a*"], [0.5], strict=True)).densities == (("a*", 0.5),)


def test_dense_refuses_what_would_share_out_the_rest() -> None:
    with pytest.raises(InputError, match=r"method dense removes nothing, got keep_dense \('a',\) and"):
        methods.dense(keep_dense="a")
    with pytest.raises(InputError, match=r"method dense removes nothing, .* and allocation 'er'"):
        methods.dense(allocation="er")


def test_dense_refuses_densities() -> None:
    with pytest.raises(InputError, match=r"method dense removes nothing, got densities \{'a': 0.5\}"):
        methods.dense(densities={"a": 0.5})


def test_methods_cannot_be_changed_after_they_are_made() -> None:
    method: Any = methods.rigl()
    with pytest.raises(AttributeError, match="cannot assign"):
        method.death_rate = 0.9
    assert isinstance(method, Method)


def test_the_page_of_methods_is_the_one_that_the_code_makes() -> None:
    # Rewrite it with: python -c "from hyperprune.sparsity import methods; print(methods.page(), end='')",
    # hyperprune reproduce methods --from docs/records/methods.jsonl --docs docs
    here, made = (
        text.partition("<!-- methods: begin -->") for text in (PAGE.read_text("utf-8"), methods.page())
    )
    assert here[0] == made[0]
    assert here[2].partition("<!-- methods: end -->")[1:] == made[2].partition("<!-- methods: end -->")[1:]


def test_every_row_of_the_table_has_the_heads_number_of_cells() -> None:
    rows = [line.replace("\\|", "") for line in methods.table().splitlines()]
    assert {row.count("|") for row in rows} == {6}
