"""A package of somebody else's, installed beside rulelens, brings a task, an analysis and a verdict."""

import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import pytest

ROOT = Path(__file__).parents[1]
STRANGER = ROOT / "tests" / "stranger"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A command in a folder outside the checkout, with the package installed beside rulelens."""
    outside = tmp_path_factory.mktemp("outside")
    copytree(STRANGER, outside / "source")
    install = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(outside / "beside")]
    subprocess.run([sys.executable, "-m", *install, str(outside / "source")], check=True, capture_output=True)
    path = os.pathsep.join([str(outside / "beside"), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

    def call(command: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name(command), *words],
            cwd=outside,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )

    return call


def test_it_takes_sixty_lines() -> None:
    lines = (STRANGER / "stranger.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 60


@pytest.mark.slow
def test_its_task_is_listed_trained_and_probed_with_its_analysis_and_its_verdict(run, tmp_path) -> None:
    assert "maximum" in run("rulelens", "list").stdout
    out = tmp_path / "run"
    run("rulelens", "train", "maximum", "--preset", "tiny", "--quiet", "--out", str(out))
    said = run("rulelens", "probe", str(out), "--json", str(tmp_path / "found.json")).stdout
    assert "ordinal: correlation −0" in said.replace("-0", "−0")
    (found,) = json.loads((tmp_path / "found.json").read_text())
    assert found["task"]["family"] == "maximum"
    assert found["verdict"]["solution"] == "ordinal"
    assert found["analyses"]["ordinal"]["correlation"] < -0.3 < found["analyses"]["ordinal"]["control_correlation"]
    assert "condensation" in found["analyses"]  # of any task
    run("rulelens", "probe", str(out), "--report", str(tmp_path / "page.html"))
    assert "ordinal: correlation" in (tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_an_entry_point_that_fails_is_one_line(run, tmp_path) -> None:
    code = (
        "from importlib import metadata\n"
        "import tasks.registry as r\n"
        "r.entry_points = lambda group: [metadata.EntryPoint('broken', 'nowhere:FAMILY', group)]\n"
        "from tasks.registry import known\n"
        "try:\n    known('broken')\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    assert run("python", "-c", code).stdout == (
        "UserError expected nowhere:FAMILY of the entry point broken: No module named 'nowhere'\n"
    )
