"""The type checker that jaxtyping runs inside hyperprune's functions during tests."""

from beartype import BeartypeConf, beartype

# A whole number where a float is annotated is right by PEP 484.
typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))
