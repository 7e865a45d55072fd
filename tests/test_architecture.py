"""The arrows between packages and files, read off the import statements."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from interp.registry import ANALYSES

ROOT = Path(__file__).parents[1]
FILES = sorted(file for package in ("tasks", "interp") for file in (ROOT / package).rglob("*.py"))
DOMAINS = ("anchor", "modular", "group", "sparse_parity")
ROOMS = (*DOMAINS, "weights", "sweeps", "report")
MAY_ENTER = {
    **{domain: {"weights"} for domain in DOMAINS},
    "group": {"modular", "weights"},  # a cyclic group is a group
    "weights": set(),
    "sweeps": set(),  # domains through the registry
    "report": set(),
    "ground": set(),
}
"""Room of interp → the rooms it may import from, besides itself and the ground."""
FRONT_DOORS = ("interp", "interp.__main__", "interp.probe")
"""What may look into several rooms: the public names, and the commands."""
TASK_FILES = tuple(sorted(path.stem for path in (ROOT / "tasks" / "families").glob("[!_]*.py")))
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
            # a module named in a table, to be loaded later: "tasks.families.anchor:AnchorComposition"
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
    assert not reaching(file, "tasks.sweep", "tasks.presets", "tasks.families")


@pytest.mark.parametrize("task", TASK_FILES)
def test_a_task_file_imports_only_what_tasks_are_made_of(task):
    own = reaching(ROOT / "tasks" / "families" / f"{task}.py", "tasks")
    assert own
    made_of = tuple(f"tasks.{name}." for name in ("base", "finite_groups", "sample", "sequence", "table"))
    assert {name for name in own if not f"{name}.".startswith(made_of)} == set()


def test_the_base_of_tasks_imports_nothing_of_the_house():
    assert not reaching(ROOT / "tasks" / "base.py", "tasks", "interp")


def room(module: str) -> str:
    """The room of interp that a module lies in; ``ground`` for files directly in the package."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "ground"


def arrows(file: Path) -> set[str]:
    """Modules of interp that a file imports anywhere, in functions and for type checkers too; not those it names."""
    modules = {module_name(other) for other in FILES}
    found: set[str] = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    packages = {"interp", *(f"interp.{name}" for name in ROOMS)}
    return {name for name in found if name in modules and name.startswith("interp")} - packages


@pytest.mark.parametrize("file", files_under("interp"), ids=module_name)
def test_no_domain_imports_another_and_the_ground_knows_none(file):
    if module_name(file) in FRONT_DOORS:
        return
    own = room(module_name(file))
    allowed = {own, "ground", *MAY_ENTER[own]}
    assert {name for name in arrows(file) if room(name) not in allowed} == set()
    assert not arrows(file) & set(FRONT_DOORS)


def test_every_room_is_known():
    packages = {path.name for path in (ROOT / "interp").iterdir() if (path / "__init__.py").is_file()}
    assert packages == set(ROOMS)


@pytest.mark.parametrize("package", ["tasks", "interp"])
def test_no_file_is_reached_from_itself_by_imports(package):
    """Of any kind, in functions and for type checkers too."""
    modules = {module_name(file): file for file in files_under(package)}
    everything = {name: _imported(file, modules) for name, file in modules.items()}
    reached_from: dict[str, set[str]] = {}
    for start in modules:
        seen, ahead = set(), list(everything[start])
        while ahead:
            name = ahead.pop()
            if name not in seen:
                seen.add(name)
                ahead += everything[name]
        reached_from[start] = seen
    assert [name for name in modules if name in reached_from[name]] == []


def _imported(file: Path, modules: dict[str, Path]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & set(modules)
            found |= inner or {node.module}
    # a package's public names point at its files for type checkers: they are names, and load nothing
    lazy = {name for name, path in modules.items() if path.name == "__init__.py"}
    return (found & set(modules)) - lazy


@pytest.mark.parametrize("analysis", ANALYSES)
def test_an_analysis_has_the_four_parts_of_the_contract(analysis):
    file = ROOT / (ANALYSES[analysis].module.replace(".", "/") + ".py")
    functions = {node.name for node in tree(file).body if isinstance(node, ast.FunctionDef)}
    assert {"analyze", "figures"} <= functions
    assert not any(isinstance(node, ast.Assign) and "TAKES" in ast.unparse(node) for node in tree(file).body)
    made = next(node for node in tree(file).body if isinstance(node, ast.FunctionDef) and node.name == "analyze")
    assert [ast.unparse(decorator) for decorator in made.decorator_list] == ["ordinary_torch()"]
    assert made.returns is not None


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
        "interp.__main__",
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
        "np.random.get_state",  # looks where it stands, and draws nothing
    }
    drawn |= {call for call in calls if call.startswith("random.")} - {
        "random.Random",
        "random.Random(self.data_seed).shuffle",
    }
    assert not (calls & forbidden) | drawn


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_no_file_is_longer_than_four_hundred_lines(file):
    assert len(file.read_text().splitlines()) <= 400
