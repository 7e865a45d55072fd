"""The README's Python examples run, and print what the README says they print."""

import contextlib
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)

COMMANDS = re.findall(
    r"^python (-m tasks train .*?) --out (\S+) +# (.+)$", (ROOT / "README.md").read_text(), flags=re.MULTILINE
)


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


def test_the_readme_has_its_three_examples() -> None:
    assert len(EXAMPLES) == 3
