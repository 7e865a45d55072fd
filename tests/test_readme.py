"""The README is short; its examples, and those of docs/, run and print what they say they print."""

import contextlib
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = README + (ROOT / "docs" / "library.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGES, flags=re.DOTALL)

COMMANDS = re.findall(r"^python (-m tasks train .*?) --out (\S+) +# (.+)$", README, flags=re.MULTILINE)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DOCS = sorted(page.stem for page in (ROOT / "docs").glob("*.md"))


@pytest.mark.slow
@pytest.mark.parametrize(("command", "out", "verdict"), COMMANDS, ids=[out for _, out, _ in COMMANDS])
def test_a_command_of_the_readme_ends_in_the_verdict_behind_it(command, out, verdict, tmp_path) -> None:
    from interp.probe import examine
    from interp.subject import Subject

    words = [*shlex.split(command), "--quiet", "--out", str(tmp_path / out)]
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
    assert examine(Subject.load(tmp_path / out)).verdict.solution == verdict


def test_the_readme_has_three_commands_with_a_verdict() -> None:
    assert len(COMMANDS) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("code", "expected"), EXAMPLES, ids=[f"example {i + 1}" for i in range(len(EXAMPLES))])
def test_an_example_of_the_readme_prints_what_it_says(code, expected, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == expected


def test_readme_and_library_page_have_their_three_examples() -> None:
    assert len(EXAMPLES) == 3


def test_the_readme_takes_three_minutes() -> None:
    assert len(README.split()) <= 1_500
    assert len(README.splitlines()) <= 140


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "checkpoints/README.md", *(f"docs/{name}.md" for name in DOCS)]
)
def test_every_link_of_a_page_leads_to_a_file(page) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text())
    missing = [link for link in targets if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()]
    assert missing == []


@pytest.mark.slow
def test_the_verdicts_of_the_readme_are_those_of_the_shipped_models() -> None:
    from interp.probe import examine
    from interp.subject import Subject

    printed = re.findall(r"```text\n(.*?)```", README, flags=re.DOTALL)[0]
    sentences = [sentence.replace("\n", " ").strip() for sentence in printed.split("\n\n")]
    assert len(sentences) == 2
    for folder, sentence in zip(("anchor-small-init/seed-1", "modular-addition"), sentences, strict=True):
        assert examine(Subject.load(ROOT / "checkpoints" / folder)).verdict.sentence == sentence


def test_the_site_has_a_place_for_every_page_and_notebook() -> None:
    nav = (ROOT / "docs" / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    pages = [*(f"docs/{page}.md" for page in DOCS), *(f"notebooks/{path.stem}.md" for path in NOTEBOOKS)]
    assert [page for page in pages if f": {page}\n" not in nav] == []
