"""The comparison of two probes sees every kind of difference, and none where there is none."""

import copy
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from compare_probes import differences

SAID = [{"run": "a", "step": 7, "verdict": {"solution": "clock"}, "analyses": {"rank": {"stable": [1.0, 2.0, None]}}}]


def changed(change):
    other = copy.deepcopy(SAID)
    change(other)
    return differences(SAID, other)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda runs: runs[0]["analyses"]["rank"]["stable"].__setitem__(1, 2.0000000000000004),
            "stable[1] was 2.0, is",
        ),
        (lambda runs: runs[0]["analyses"]["rank"]["stable"].__setitem__(2, 1.0), "stable[2] was None, is 1.0"),
        (lambda runs: runs[0]["verdict"].clear(), "verdict.solution is lost, it was 'clock'"),
        (lambda runs: runs[0].update(more=1), "more is new, 1"),
        (lambda runs: runs[0].update(step=8), "step 7: run is lost, it was 'a'"),
    ],
)
def test_a_difference_is_seen(change, line) -> None:
    assert any(line in found for found in changed(change))


def test_equal_probes_have_none() -> None:
    assert changed(lambda runs: None) == []
