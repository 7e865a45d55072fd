"""The report: one standalone HTML file with every verdict, number and figure; plotly.js inlined once, no network."""

import html
from collections.abc import Sequence
from pathlib import Path
from string import Template

from interp.report.examined import Report, headline
from tasks.training.snapshots import write_atomically


def write_page(reports: Sequence[Report], path: Path) -> None:
    """Write the page for these reports."""
    write_atomically(path, page(reports).encode())


def page(reports: Sequence[Report]) -> str:
    """The page: a table of verdicts, then a section per subject with its numbers and figures."""
    from plotly.offline import get_plotlyjs

    template = Template((Path(__file__).parent / "template.html").read_text())
    return template.substitute(
        plotlyjs=get_plotlyjs(),
        contents="\n".join(_contents_row(index, report) for index, report in enumerate(reports)),
        sections="\n".join(_section(index, report) for index, report in enumerate(reports)),
    )


def _title(report: Report) -> str:
    step = "" if report.subject.step is None else f", step {report.subject.step:,}"
    return html.escape(f"{report.subject.name}{step}")


def _contents_row(index: int, report: Report) -> str:
    cells = [f'<a href="#run-{index}">{_title(report)}</a>', f"<b>{html.escape(report.verdict.solution)}</b>"]
    cells += [f"{report.performance[name]:.4g}" for name in ("train_loss", "test_loss")]
    accuracies = [report.performance.get(name) for name in ("train_accuracy", "test_accuracy")]
    cells += ["" if accuracy is None else f"{accuracy:.1%}" for accuracy in accuracies]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _section(index: int, report: Report) -> str:
    rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in headline(report))
    skipped = "".join(
        f"<p>{html.escape(name)} was skipped: {html.escape(why)}.</p>" for name, why in report.skipped.items()
    )
    drawn = []
    for name, result in report.results.items():
        figures_of = getattr(report.modules[name], "figures", None)
        for figure_name, figure in figures_of(result).items() if figures_of else ():
            drawn.append(
                figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"run-{index}-{name}-{figure_name}")
            )
    figures = "".join(f'<div class="figure">{figure}</div>' for figure in drawn)
    return (
        f'<section id="run-{index}"><h2>{_title(report)}</h2>'
        f'<p class="verdict">{html.escape(report.verdict.sentence)}</p>'
        f'<p class="rule">Rule: {html.escape(report.verdict.rule)}.</p>'
        f"<details><summary>All numbers</summary><table>{rows}</table></details>{skipped}"
        f'<div class="figures">{figures}</div></section>'
    )
