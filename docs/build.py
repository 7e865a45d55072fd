"""``make docs``: assembles the pages of the site in ``build/pages``, from which mkdocs makes ``build/site``.

The pages lie as they do in the checkout, so that links between them hold. Each notebook is executed and becomes a page
with its figures; every public module has a page of reference made from its docstrings. Nothing is fetched when the site
is read: plotly's own script is copied beside the pages.
"""

import shutil
from pathlib import Path
from typing import Any

import nbformat
import plotly.graph_objects as go
import plotly.io
from nbclient import NotebookClient
from plotly.offline import get_plotlyjs

from interp.registry import ANALYSES, MEASURES
from tasks.registry import FAMILIES

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build" / "pages"
COPIED = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "checkpoints/README.md", "notebooks/LOG.md"),
    *("tests/benchmarks/RESULTS.md", "tests/benchmarks/scaling.svg"),
)
GROUND = ("interp.subject", "interp.probe", "interp.registry", "interp.statistics", "interp.contract", "interp.verdict")
OF_TASKS = ("tasks.base", "tasks.registry", "tasks.contract", "tasks.training.config", "tasks.training.trainer")
PLOTLY = "application/vnd.plotly.v1+json"
SHOWN = 20_000  # characters of a printed output


def main() -> None:
    """Assemble every page."""
    shutil.rmtree(PAGES, ignore_errors=True)
    documents = sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "docs").glob("*.svg"))
    for source in [*(ROOT / name for name in COPIED), *documents]:
        copy(source)
    (PAGES / "plotly.js").write_text(get_plotlyjs())
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        write(notebook.relative_to(ROOT).with_suffix(".md"), page_of(notebook))
    modules = [*(line.module for line in ANALYSES.values()), *MEASURES.values(), *GROUND, *OF_TASKS, *families()]
    for module in dict.fromkeys(modules):
        write(Path("reference", f"{module}.md"), f"# {module}\n\n::: {module}\n")
    links = "\n".join(f"- [{module}]({module}.md)" for module in sorted(set(modules)))
    write(Path("reference", "index.md"), f"# Reference\n\nMade from the docstrings.\n\n{links}\n")


def families() -> list[str]:
    """The modules of the task families."""
    return [str(line.task).partition(":")[0] for line in FAMILIES.values()]


def copy(source: Path) -> None:
    """Put a page where it lies in the checkout."""
    if source.suffix == ".md":
        write(source.relative_to(ROOT), source.read_text())
    else:
        target = PAGES / source.relative_to(ROOT)
        shutil.copy(source, target)


def write(where: Path, text: str) -> None:
    """Write a page; a link to a notebook becomes one to its page."""
    target = PAGES / where
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text.replace(".ipynb)", ".md)"))


def page_of(path: Path) -> str:
    """A notebook, executed, as Markdown with its figures."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(path.parent)}}).execute()
    parts = ['<script src="../plotly.js" charset="utf-8"></script>']  # before the figures, which call it
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        else:
            parts += [f"```python\n{cell.source}\n```", *(shown(output) for output in cell.outputs)]
    return "\n\n".join(parts) + "\n"


def shown(output: Any) -> str:
    """One output of a cell: a figure, a table, or what was printed."""
    data = output.get("data", {})
    if PLOTLY in data:
        figure = go.Figure(data[PLOTLY]["data"], data[PLOTLY]["layout"])
        drawn = plotly.io.to_html(figure, include_plotlyjs=False, full_html=False)
        return f'<div style="overflow-x: auto">{drawn}</div>'  # on a phone the figure scrolls, not the page
    if "text/html" in data:
        return "".join(line.strip() for line in data["text/html"].splitlines())  # Markdown ends HTML at an empty line
    return f"```text\n{(output.get('text') or data.get('text/plain', ''))[:SHOWN]}\n```"


if __name__ == "__main__":
    main()
