"""The wheel holds every module and every data file of both packages."""

import subprocess
import sys
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_has_every_module_and_data_file(tmp_path) -> None:
    source = tmp_path / "source"
    copytree(ROOT, source, ignore=ignore_patterns(".*", "checkpoints", "notebooks", "tests", "build", "*.egg-info"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(("tasks/", "interp/"))}
    expected = {
        str(file.relative_to(ROOT))
        for package in ("tasks", "interp")
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert inside == expected
    assert "interp/report/template.html" in inside
