"""How annotations are checked while the tests run."""

import contextlib

import jaxtyping
from beartype import BeartypeConf, beartype

# An int is a float, as type checkers say.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function):
    """Checks a function, but no `__init__`: JAX rebuilds dataclasses with anything in them."""
    return function if function.__name__ == "__init__" else _check(function)


@contextlib.contextmanager
def off():
    """Nothing is checked: what users see, whom a function itself tells that an array is wrong."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
