"""A new family, and a new analysis, is one file and one line: those of CONTRIBUTING, in a copy of the packages."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)
TASK, TASK_LINE, ANALYSIS, ANALYSIS_LINE = BLOCKS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """``python …`` in a folder with a copy of the packages, the two files and the two lines."""
    house = tmp_path_factory.mktemp("house")
    for package in ("tasks", "interp"):
        copytree(ROOT / package, house / package, ignore=ignore_patterns("__pycache__"))
    (house / "tasks/families/majority.py").write_text(TASK)
    (house / "interp/weights/sparsity.py").write_text(ANALYSIS)
    add(house / "tasks/registry.py", "FAMILIES = {\n", TASK_LINE)
    add(house / "interp/registry.py", "ANALYSES: dict[str, Analysis] = {\n", ANALYSIS_LINE)
    environment = os.environ | {"PYTHONPATH": str(house), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

    def call(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=house, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def add(file: Path, after: str, line: str) -> None:
    text = file.read_text()
    assert text.count(after) == 1
    file.write_text(text.replace(after, after + line))


@pytest.mark.slow
def test_they_are_listed_trained_probed_and_public(run, tmp_path) -> None:
    out = str(tmp_path / "run")
    assert "majority" in run("-m", "interp", "list")
    run("-m", "interp", "train", "majority", "--preset", "tiny", "--quiet", "--out", out)
    report, found = tmp_path / "report.html", tmp_path / "found.json"
    said = run("-m", "interp", "probe", out, "--report", str(report), "--json", str(found))
    assert "generalises: " in said
    (only,) = json.loads(found.read_text())
    assert 0 < only["analyses"]["sparsity"]["silent"] < 1
    assert 0.3 < only["analyses"]["sparsity"]["control_silent"] < 0.7
    assert "Silent neurons" in report.read_text()
    assert "sparsity" in run("-m", "interp", "probe", "--help")
    assert run("-c", "from tasks import Majority; from interp import sparsity; print(sparsity.__name__)") == (
        "interp.weights.sparsity\n"
    )


@pytest.mark.slow
def test_they_keep_the_contracts(run) -> None:
    code = (
        "from tasks import Majority\n"
        "from tasks.contract import check_task\n"
        "check_task(Majority())\n"
        "from interp import Subject, sparsity\n"
        "from interp.contract import check_analysis\n"
        "from interp.report.examined import headline\n"
        "from tasks.models.initialization import Initialization, initialize\n"
        "from tasks.presets import preset\n"
        "from tasks.registry import model_family\n"
        "p = preset('majority', 'tiny')\n"
        "model = p.model.for_task(p.task)\n"
        "params = initialize(model_family(model).shapes(model), model, Initialization(), 0)\n"
        "check_analysis(sparsity, Subject.of(model, params, p.task))\n"
        "print('kept')"
    )
    assert run("-c", code) == "kept\n"


@pytest.mark.slow
def test_they_are_written_as_the_house_writes(tmp_path) -> None:
    for name, text in {"majority.py": TASK, "sparsity.py": ANALYSIS}.items():
        (tmp_path / name).write_text(text)
        check = [sys.executable, "-m", "ruff", "format", "--check", "--config", str(ROOT / "pyproject.toml"), name]
        assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode == 0, name
