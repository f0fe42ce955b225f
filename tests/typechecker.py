"""How annotations are checked while the tests run."""

from beartype import BeartypeConf, beartype

# An int is a float, as type checkers say.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function):
    """Checks a function, but not the fields of dataclasses: JAX puts anything into pytrees."""
    return function if "jaxtyping" in function.__code__.co_filename else _check(function)
