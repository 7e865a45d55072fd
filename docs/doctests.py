"""Doctests of docstrings as blocks of code in the reference: an extension of griffe, which reads the packages."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?:^[ \t]*>>> .*\n?)(?:^[ \t]*\S.*\n?)*", flags=re.MULTILINE)


class Doctests(griffe.Extension):
    """Fences every example, from its ``>>>`` to the next empty line."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of each object."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(_fenced, obj.docstring.value)


def _fenced(example: re.Match[str]) -> str:
    lines = [line.strip() for line in example.group().rstrip().splitlines()]
    return "\n".join(["```pycon", *lines, "```", ""])
