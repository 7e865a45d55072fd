"""The type checker of the tests: beartype, with two exceptions.

It leaves alone a method that returns ``Self``, which it knows in whole classes only, and lets a constructor refuse an
unknown choice by itself: the message of that refusal is tested.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

from beartype import beartype
from beartype.roar import BeartypeDecorHintPep673Exception


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its arguments and return value checked at every call."""
    if function.__name__ == "__init__":
        function.__annotations__ = {
            name: Any if Literal in (get_origin(hint), *map(get_origin, get_args(hint))) else hint
            for name, hint in function.__annotations__.items()
        }
    try:
        return beartype(function)
    except BeartypeDecorHintPep673Exception:
        return function
