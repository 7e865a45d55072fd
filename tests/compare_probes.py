"""Compare what two versions say of the same models, number by number.

``python -m interp.probe RUN … --json FILE`` writes what one says; ``python -P tests/compare_probes.py BEFORE AFTER``
lists every key that only one has and every value that differs. Exit status 1 if there is any.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every number, name and null with the way to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{at}.{key}" if at else key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{at}[{index}]")
    else:
        yield at, value


def differences(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[str]:
    """A line for each key that was lost or came, and each value that changed."""
    found = []
    runs = {f"{run['run']}, step {run['step']}": run for run in before}
    others = {f"{run['run']}, step {run['step']}": run for run in after}
    for name in [*runs, *(name for name in others if name not in runs)]:
        ours, theirs = dict(leaves(runs.get(name, {}))), dict(leaves(others.get(name, {})))
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            if key not in theirs:
                found.append(f"{name}: {key} is lost, it was {ours[key]!r}")
            elif key not in ours:
                found.append(f"{name}: {key} is new, {theirs[key]!r}")
            elif ours[key] != theirs[key]:
                found.append(f"{name}: {key} was {ours[key]!r}, is {theirs[key]!r}")
    return found


def main(before: Path, after: Path) -> int:
    """Print the differences; how many there are."""
    one, other = (json.loads(path.read_text()) for path in (before, after))
    found = differences(one, other)
    for line in found:
        print(line)
    compared = sum(len(dict(leaves(run))) for run in one)
    print(f"{len(one)} runs, {compared:,} values compared, {len(found)} differ")
    return len(found)


if __name__ == "__main__":
    sys.exit(1 if main(Path(sys.argv[1]), Path(sys.argv[2])) else 0)
