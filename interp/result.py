"""What an analysis hands back: a frozen record that prints as a table and travels as JSON.

Every result dataclass derives from ``Result`` and adds nothing but fields. A field holds a number, a name, a tuple, a
mapping, another result, or an array (a tensor). Arrays are data for figures: they are left out of the JSON unless asked
for, whatever their size, so that the set of keys depends on the analysis and not on the model.
"""

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
from torch import Tensor

Array = Tensor | np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """Base of all results; subclasses are frozen, keyword-only dataclasses."""

    def to_dict(self, *, arrays: bool = False) -> dict[str, Any]:
        """Fields as JSON values: tuples become lists, keys strings, and a number that is not finite None.

        Args:
            arrays: whether array fields are included, as nested lists.
        """
        return _fields(self, arrays)

    def _repr_html_(self) -> str:
        """A table of the fields, arrays by their shape, for a notebook."""
        cells = ((html.escape(f.name), html.escape(_shown(getattr(self, f.name)))) for f in fields(self))
        rows = "".join(f"<tr><th style='text-align:left'>{name}</th><td>{value}</td></tr>" for name, value in cells)
        return f"<table><caption>{html.escape(type(self).__name__)}</caption>{rows}</table>"


def _fields(record: Any, arrays: bool) -> dict[str, Any]:
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    return {name: _plain(value, arrays) for name, value in values.items() if arrays or not isinstance(value, Array)}


def _plain(value: Any, arrays: bool) -> Any:
    """The value in JSON's own types."""
    if isinstance(value, Array):
        return _plain(value.tolist(), arrays)
    if is_dataclass(value):
        return _fields(value, arrays)
    if isinstance(value, Mapping):
        kept = {key: v for key, v in value.items() if arrays or not isinstance(v, Array)}
        return {_key(key): _plain(v, arrays) for key, v in kept.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, arrays) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _key(key: Any) -> str:
    """A mapping's key as JSON's string: the pair (4, 3) becomes "4,3"."""
    return ",".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _shown(value: Any) -> str:
    """The value in a table's cell."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Array):
        return f"array {list(value.shape)}"
    if isinstance(value, Result):
        return ", ".join(f"{f.name} {_shown(getattr(value, f.name))}" for f in fields(value))
    if isinstance(value, Mapping):
        return "; ".join(f"{_key(key)}: {_shown(v)}" for key, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    return str(value)
