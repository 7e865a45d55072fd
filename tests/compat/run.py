"""The model tests under transformer-lens 3.9, in an environment of their own: python tests/compat/run.py [DIRECTORY]

The environment (default ``.venv-tl39``) is built when it is missing or when the pins change. It has the pins of
``constraints.txt`` but for transformer-lens itself, and better-abc, which 3.9 imports and does not ask for.
"""

import argparse
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = ["transformer-lens==3.9.0", "better-abc", "pytest", "beartype"]
TESTS = [
    "tests/models/test_hooked.py",
    "tests/models/test_hooked_mlp.py",
    "tests/models/test_convert.py",
    "tests/models/test_transformer.py",
    "tests/models/test_initialization.py",
    "tests/compat/readme_39.py",
]


def build(environment: Path) -> Path:
    """The environment's python, after making sure that everything is installed there."""
    python = environment / "bin" / "python"
    pins = [
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("transformer-lens")
    ]
    wanted = "\n".join([*REQUIRED, *pins]) + "\n"
    installed = environment / "installed.txt"
    if not installed.exists() or installed.read_text() != wanted:
        venv.create(environment, clear=True, with_pip=True)
        constraints = environment / "constraints.txt"
        constraints.write_text("\n".join(pins) + "\n")
        install = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--constraint",
            constraints,
            "--editable",
            ROOT,
            *REQUIRED,
        ]
        subprocess.run(install, check=True)
        installed.write_text(wanted)  # last: an interrupted installation is not taken for a whole one
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", nargs="?", type=Path, default=ROOT / ".venv-tl39", metavar="DIRECTORY")
    python = build(parser.parse_args().environment.resolve())
    sys.exit(subprocess.run([python, "-m", "pytest", "-p", "no:cacheprovider", *TESTS], cwd=ROOT).returncode)


if __name__ == "__main__":
    main()
