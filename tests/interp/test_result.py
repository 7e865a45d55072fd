"""Results as JSON and as a table."""

import dataclasses
import json

import pytest
import torch

from interp.result import Result
from interp.statistics import Interval


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Example(Result):
    number: float
    names: tuple[str, ...]
    shares: dict[tuple[int, int], Interval]
    spectra: dict[str, torch.Tensor]
    values: torch.Tensor
    missing: float | None = None


INTERVAL = Interval(value=0.5, low=0.25, high=float("nan"), n=8, n_units=4, method="bootstrap")
EXAMPLE = Example(
    number=float("nan"),
    names=("a", "<b>"),
    shares={(4, 3): INTERVAL},
    spectra={"one": torch.tensor([1.0])},
    values=torch.tensor([[1.0, float("inf")]]),
)


def test_json_has_null_for_nan_and_leaves_arrays_out_unless_asked():
    interval = {"value": 0.5, "low": 0.25, "high": None, "n": 8, "n_units": 4, "method": "bootstrap"}
    plain = {"number": None, "names": ["a", "<b>"], "shares": {"4,3": interval}, "spectra": {}, "missing": None}
    assert EXAMPLE.to_dict() == plain
    assert EXAMPLE.to_dict(arrays=True) == plain | {"spectra": {"one": [1.0]}, "values": [[1.0, None]]}
    assert json.loads(json.dumps(EXAMPLE.to_dict(arrays=True), allow_nan=False)) == EXAMPLE.to_dict(arrays=True)


def test_the_table_of_a_notebook_shows_every_field_and_escapes_it():
    shown = EXAMPLE._repr_html_()
    assert "Example" in shown
    assert all(f.name in shown for f in dataclasses.fields(EXAMPLE))
    assert "a, &lt;b&gt;" in shown
    assert "array [1, 2]" in shown
    assert "4,3: 0.500 [0.250, nan]" in shown


def test_a_result_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EXAMPLE.number = 1.0  # pyright: ignore[reportAttributeAccessIssue]
