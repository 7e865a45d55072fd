"""What is public is named once: package, registry, command line and README agree, and each name is what it says."""

import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import interp
import tasks
import tasks.models
import tasks.sweep
import tasks.training
from interp.probe import Probe
from interp.registry import ANALYSES, MEASURES, TAKES, Analysis
from tasks.base import UserError
from tasks.lazy import lazily

ROOT = Path(__file__).parents[1]
OBJECTS = {"Ensemble", "Subject", "Trajectory"}


def test_interp_names_its_subjects_every_analysis_and_the_measures() -> None:
    assert set(interp.__all__) == OBJECTS | set(ANALYSES) | set(MEASURES)
    assert list(interp.__all__) == sorted(interp.__all__)


@pytest.mark.parametrize("name", [*ANALYSES, *MEASURES])
def test_a_public_name_of_interp_is_a_module(name) -> None:
    module = getattr(interp, name)
    assert isinstance(module, ModuleType)
    assert module.__name__ == (ANALYSES[name].module if name in ANALYSES else MEASURES[name])


def test_a_module_that_holds_a_function_of_its_own_name_is_still_the_module() -> None:
    code = (
        "import interp.weights.condensation, interp.weights.directions\n"
        "from interp import condensation, directions, fourier, rank, counterfactual\n"
        "print(callable(condensation.condensation), condensation.analyze.__name__, directions.analyze.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True analyze analyze\n"


@pytest.mark.parametrize(
    "package", [tasks, tasks.models, tasks.training, tasks.sweep], ids=lambda package: package.__name__
)
def test_a_public_name_of_tasks_is_the_object_of_that_name(package) -> None:
    for name in set(package.__all__) - {"variants"}:
        assert getattr(package, name).__name__ == name


def test_an_object_is_written_with_a_colon_and_a_module_without() -> None:
    where = {"Subject": "interp.subject:Subject", "condensation": "interp.weights.condensation"}
    assert lazily("interp", "Subject", where).__name__ == "Subject"
    assert isinstance(lazily("interp", "condensation", where), ModuleType)
    with pytest.raises(AttributeError, match="no attribute 'rank'"):
        lazily("interp", "rank", where)


def test_the_help_of_only_names_every_analysis_of_a_subject() -> None:
    (option,) = (text for text in Probe.__annotations__["only"].__metadata__ if getattr(text, "help", None))
    named = option.help.rpartition("There are ")[2].rstrip(".").split(", ")
    assert named == [name for name, line in ANALYSES.items() if line.takes == "subject"]


def test_the_readme_has_the_table_of_the_registry() -> None:
    """``python -P tests/readme_table.py`` writes it anew."""
    made = runpy.run_path(str(ROOT / "tests" / "readme_table.py"))
    (block,) = made["BLOCK"].findall((ROOT / "README.md").read_text())
    assert block == made["table"]()


def test_the_page_of_analyses_has_a_row_for_each() -> None:
    page = (ROOT / "docs" / "analyses.md").read_text()
    rows = re.findall(r"^\| `(\w+)(?:\.analyze)?[`(]", page, flags=re.MULTILINE)
    assert set(ANALYSES) <= set(rows)
    of_a_subject = {name for name, line in ANALYSES.items() if line.takes == "subject"}
    others = [name for name in ANALYSES if name not in of_a_subject]
    called = re.findall(r"^\| `(\w+)\.analyze", page, flags=re.MULTILINE)
    assert sorted(set(called) & set(ANALYSES)) == sorted(others)


def test_an_analysis_says_what_it_is_made_of_by_a_name_that_the_registry_knows() -> None:
    assert {line.takes for line in ANALYSES.values()} <= set(TAKES)
    with pytest.raises(UserError, match="expected takes among subject, trajectory, pair of ensembles, table"):
        Analysis("somebodys.width", takes="a model")
