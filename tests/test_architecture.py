"""The arrows between packages and files, read off the import statements."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from interp import probe
from tasks.registry import TASKS

ROOT = Path(__file__).parents[1]
FILES = sorted(file for package in ("tasks", "interp") for file in (ROOT / package).rglob("*.py"))
ANALYSES = tuple(probe.ANALYSES)
SHARED = (
    "ablation",
    "addition",
    "angles",
    "boxes",
    "characters",
    "composition",
    "cosets",
    "cubes",
    "cutting",
    "fourier",
    "operands",
    "patching",
    "paths",
    "projection",
    "readout",
    "restricted",
    "roles",
    "sequences",
    "subnetwork",
    "thresholds",
    "two_matrices",
    "walsh",
    "waves",
)
"""What several analyses compute with; it keeps to the same imports."""
TASK_FILES = tuple(sorted({where.partition(":")[0].removeprefix("tasks.") for where in TASKS.values()}))
HEAVY = ("torch", "sklearn", "transformer_lens", "plotly", "scipy")


def module_name(file: Path) -> str:
    """The dotted name of a file."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path, *, everywhere: bool = True) -> set[str]:
    """Names of the modules that a file imports: ``a.b`` and ``a.b.name`` for ``from a.b import name``.

    ``everywhere``: in functions and for type checkers too; otherwise only what importing the file executes.
    """
    found: set[str] = set()
    for node in ast.walk(tree(file)) if everywhere else executed(tree(file).body):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            assert node.module
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and everywhere:
            # a module named in a table, to be loaded later: "tasks.anchor:AnchorComposition"
            name = node.value.partition(":")[0]
            if name.startswith(("tasks.", "interp.")) and (ROOT / name.replace(".", "/")).with_suffix(".py").exists():
                found.add(name)
    return found


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def executed(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Statements that run on import: not those in functions or under TYPE_CHECKING."""
    for node in body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from executed(node.orelse)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            for part in ("body", "orelse", "finalbody"):
                yield from executed(getattr(node, part, []))
        elif isinstance(node, ast.ClassDef):
            yield from executed(node.body)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def reaching(file: Path, *targets: str) -> set[str]:
    return {
        name for name in imports(file) if any(name == target or name.startswith(f"{target}.") for target in targets)
    }


def files_under(*packages: str) -> list[Path]:
    return [file for file in FILES if any(f"{module_name(file)}.".startswith(f"{package}.") for package in packages)]


@pytest.mark.parametrize("file", files_under("tasks"), ids=module_name)
def test_tasks_never_import_interp(file):
    assert not reaching(file, "interp")


@pytest.mark.parametrize("file", files_under("tasks.models"), ids=module_name)
def test_models_know_neither_training_nor_sweeps(file):
    assert not reaching(file, "tasks.training", "tasks.sweep", "tasks.presets")


@pytest.mark.parametrize("file", files_under("tasks.training"), ids=module_name)
def test_training_knows_neither_sweeps_nor_any_one_task(file):
    assert not reaching(file, "tasks.sweep", "tasks.presets", *(f"tasks.{task}" for task in TASK_FILES))


@pytest.mark.parametrize("task", TASK_FILES)
def test_a_task_file_imports_only_what_tasks_are_made_of(task):
    own = reaching(ROOT / "tasks" / f"{task}.py", "tasks")
    assert own
    assert {
        name for name in own if not f"{name}.".startswith(("tasks.base.", "tasks.sequence.", "tasks.table."))
    } == set()


def test_the_base_of_tasks_imports_nothing_of_the_house():
    assert not reaching(ROOT / "tasks" / "base.py", "tasks", "interp")


@pytest.mark.parametrize("analysis", [*ANALYSES, *SHARED])
def test_an_analysis_imports_at_module_level_only_what_every_analysis_may(analysis):
    import sys

    rooms = ("result", "statistics", "subject", *SHARED)
    allowed = {"torch", "numpy", "jaxtyping", *(f"interp.{room}" for room in rooms)}
    for name in imports(ROOT / "interp" / f"{analysis}.py", everywhere=False):
        top = name.partition(".")[0]
        assert (
            top in sys.stdlib_module_names
            or top == "tasks"
            or any(name == other or name.startswith(f"{other}.") for other in allowed)
            or name == "interp"  # of "from interp import …", whose names are checked themselves
        ), f"{analysis} imports {name}"


@pytest.mark.parametrize("analysis", ANALYSES)
def test_an_analysis_has_the_four_parts_of_the_contract(analysis):
    file = ROOT / "interp" / f"{analysis}.py"
    functions = {node.name for node in tree(file).body if isinstance(node, ast.FunctionDef)}
    assert {"analyze", "figures"} <= functions
    named = {ast.unparse(node.target) for node in tree(file).body if isinstance(node, ast.AnnAssign)}
    named |= {
        ast.unparse(target) for node in tree(file).body if isinstance(node, ast.Assign) for target in node.targets
    }
    assert "TAKES" in named
    results = [node for node in tree(file).body if isinstance(node, ast.ClassDef)]
    assert any("frozen=True" in ast.unparse(d) for node in results for d in node.decorator_list)


@pytest.mark.parametrize(
    "file", files_under("tasks.sweep", "tasks.training", "tasks.models", "interp"), ids=module_name
)
def test_scikit_learn_transformer_lens_and_plotly_load_where_they_are_used(file):
    lazy = {name.partition(".")[0] for name in imports(file, everywhere=False)} & {
        "sklearn",
        "transformer_lens",
        "plotly",
    }
    home = {"tasks.models.hooked": {"transformer_lens"}, "interp.plots": {"plotly"}, "interp.theme": {"plotly"}}
    assert lazy <= home.get(module_name(file), set())


@pytest.mark.parametrize(
    "name",
    [
        "tasks",
        "tasks.models",
        "tasks.training",
        "interp",
        "tasks.__main__",
        "interp.probe",
        "tasks.presets",
        "tasks.sweep.command",
    ],
)
def test_what_a_command_line_imports_executes_no_import_of_a_heavy_package(name):
    reached, ahead = set(), [name]
    while ahead:
        module = ahead.pop()
        if module in reached or not module.startswith(("tasks", "interp")):
            continue
        reached.add(module)
        path = ROOT / module.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if file.exists():
            names = imports(file, everywhere=False)
            assert not {n.partition(".")[0] for n in names} & set(HEAVY), f"{name} reaches {module}, which is heavy"
            ahead += names


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_no_module_is_named_for_being_useful(file):
    assert not {"utils", "util", "helpers", "helper", "common", "misc"} & set(module_name(file).split("."))


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_every_public_function_class_and_module_has_a_docstring(file):
    inherited = {"tasks.models.hooked": {"Cache"}}  # overrides transformer-lens's methods, which have theirs
    bare = []
    source = tree(file)
    if source.body and not ast.get_docstring(source):
        bare.append(module_name(file))
    classes = [node for node in source.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]
    for owner in (source, *(node for node in classes if node.name not in inherited.get(module_name(file), ()))):
        for node in owner.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_" and not ast.get_docstring(node):
                bare.append(f"{getattr(owner, 'name', '')}.{node.name}")
    assert not bare


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_nothing_touches_global_random_state(file):
    calls = {ast.unparse(node.func) for node in ast.walk(tree(file)) if isinstance(node, ast.Call)}
    forbidden = {
        "torch.manual_seed",
        "torch.cuda.manual_seed",
        "torch.cuda.manual_seed_all",
        "torch.seed",
        "random.seed",
    }
    drawn = {call for call in calls if call.startswith("np.random.")} - {
        "np.random.Generator",
        "np.random.Philox",
        "np.random.SeedSequence",
    }
    drawn |= {call for call in calls if call.startswith("random.")} - {
        "random.Random",
        "random.Random(self.data_seed).shuffle",
    }
    assert not (calls & forbidden) | drawn


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_no_file_is_longer_than_four_hundred_lines(file):
    assert len(file.read_text().splitlines()) <= 400


def test_every_package_is_named_in_the_distribution():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(packages) == sorted({module_name(file.parent / "__init__.py") for file in FILES})
