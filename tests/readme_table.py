"""The README's table of analyses, made from the registry: ``python -P tests/readme_table.py`` writes it anew."""

import ast
import re
from pathlib import Path

from interp.registry import ANALYSES, ANY, Analysis

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(?<=<!-- from interp/registry\.py -->\n).*?(?=<!-- end -->)", flags=re.DOTALL)


def table() -> str:
    """A row per analysis: its name, what it takes, of which tasks, and the first line of its module."""
    rows = ["| analysis | of | tasks | what it asks |", "|---|---|---|---|"]
    rows += [f"| `{name}` | {line.takes} | {_tasks(line)} | {_question(line)} |" for name, line in ANALYSES.items()]
    return "\n".join(rows) + "\n"


def _tasks(line: Analysis) -> str:
    return "any" if line.tasks == ANY else ", ".join(line.tasks)


def _question(line: Analysis) -> str:
    """The first sentence of the module's docstring."""
    source = (ROOT / (line.module.replace(".", "/") + ".py")).read_text()
    first = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=[.?])\s", first)[0]


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(BLOCK.sub(lambda _: table(), readme.read_text()))
