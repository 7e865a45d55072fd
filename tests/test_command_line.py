"""The two command lines: quick to start, and one line with status 2 for a user's mistake."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from interp import __main__ as rulelens
from interp import probe
from tasks import __main__ as command_line
from tasks.families.anchor import Anchor
from tasks.presets import preset, sizes
from tasks.registry import FAMILIES
from tasks.training.run import Run

TINY = [
    "--preset",
    "tiny",
    "--task.p",
    "7",
    "--model.d-model",
    "16",
    "--model.n-heads",
    "1",
    "--model.d-mlp",
    "16",
    "--training.steps",
    "6",
    "--training.snapshots",
    "2",
    "--training.evaluate-every",
    "3",
    "--quiet",
]
TINY_ANCHOR = [
    "--preset",
    "tiny",
    "--task.sequences-per-pair",
    "20",
    "--model.d-model",
    "16",
    "--model.d-head",
    "8",
    "--model.d-mlp",
    "16",
    "--training.steps",
    "2",
    "--training.batch-size",
    "16",
    "--training.warmup-steps",
    "1",
    "--training.snapshots",
    "2",
    "--quiet",
]


@pytest.fixture
def tasks(monkeypatch) -> Callable[..., None]:
    """``python -m tasks`` in this process."""

    def run(*arguments: str | Path) -> None:
        monkeypatch.setattr(sys, "argv", ["tasks", *map(str, arguments)])
        command_line.main()

    return run


@pytest.fixture
def run_folder(tasks, tmp_path, capsys) -> Path:
    """A trained run."""
    tasks("train", "modular", *TINY, "--out", tmp_path / "run")
    capsys.readouterr()
    return tmp_path / "run"


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def refusal(call: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error with which a command ends in status 2."""
    with pytest.raises(SystemExit) as end:
        call()
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


STARTS = {
    "import interp": "import interp",
    "import tasks": "import tasks",
    "tasks --help": "tasks",
    "tasks list --help": "tasks list",
    "tasks show --help": "tasks show",
    "tasks sweep --help": "tasks sweep",
    "tasks train --help": "tasks train",
    "tasks train modular --help": "tasks train modular",
    "tasks train anchor --help": "tasks train anchor",
    "tasks train parity --help": "tasks train parity",
    "tasks train memory_reasoning --help": "tasks train memory_reasoning",
    "interp.probe --help": "interp.probe",
    "rulelens --help": "interp",
    "rulelens train --help": "interp train modular",
    "rulelens probe --help": "interp probe",
}
CHILD = """
import json, os, runpy, sys
words = {words!r}.split()
if words[0] == "import":
    __import__(words[1])
else:
    sys.argv = [*words, "--help"]
    out, sys.stdout = sys.stdout, open(os.devnull, "w")
    try:
        runpy.run_module(words[0], run_name="__main__")
    except SystemExit as end:
        assert not end.code
    sys.stdout = out
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""
NEEDED = """
import json, sys
import jaxtyping, numpy.random, tyro, typeguard  # the last is what tyro loads to make a parser
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def modules(program: str) -> set[str]:
    """Top-level names of what a Python program has loaded when it prints them."""
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(child.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
def test_help_and_import_load_numpy_and_tyro_and_nothing_heavier(start):
    loaded = modules(CHILD.format(words=STARTS[start]))
    assert not {"torch", "sklearn", "transformer_lens", "scipy", "plotly", "pandas"} & loaded
    assert loaded <= {*modules(NEEDED), *sys.stdlib_module_names, "tasks", "interp"}


def test_training_from_the_command_line_writes_a_run_that_records_its_command(tasks, tmp_path, capsys):
    tasks("train", "modular", *TINY, "--out", tmp_path / "run")
    assert "step 6, learning rate" in capsys.readouterr().out
    run = Run.load(tmp_path / "run")
    assert run.finished
    assert (run.task.p, run.config.model.d_vocab, run.config.training.steps) == (7, 8, 6)
    assert run.config.command == " ".join(["python -m tasks train modular", *TINY, "--out", str(tmp_path / "run")])


def test_several_seeds_write_a_folder_each_and_gammas_differ_per_model(tasks, tmp_path):
    tasks("train", "modular", *TINY, "--out", tmp_path, "--seeds", 3, 5, "--gammas", 0.4, 0.9, "--init.scheme", "power")
    runs = [Run.load(tmp_path / f"seed-{seed}") for seed in (3, 5)]
    assert [run.config.init.gamma for run in runs] == [0.4, 0.9]


def test_training_again_with_the_same_command_changes_nothing(tasks, run_folder):
    before = digests(run_folder)
    tasks("train", "modular", *TINY, "--out", run_folder)
    assert digests(run_folder) == before


@pytest.mark.parametrize("split", ["random", "python_shuffle", "torch_randperm"])
def test_a_split_is_chosen_by_name(split, tasks, tmp_path):
    tasks("train", "modular", *TINY, "--out", tmp_path / "run", "--task.split", split)
    assert Run.load(tmp_path / "run").task.split == split


def test_anchors_and_roles_are_options(tasks, tmp_path):
    options = "--task.anchors 5 -3 2x+1 --task.relabelled 1 2 7 2 3 -1 --task.held-out 2 1 3 2 --task.d-vocab 420"
    tasks("train", "anchor", *TINY_ANCHOR, "--out", tmp_path / "run", *options.split())
    task = Run.load(tmp_path / "run").task
    assert task.anchors == (Anchor(offset=5), Anchor(offset=-3), Anchor(offset=1, multiplier=2))
    assert task.relabelled == ((1, 2, 7), (2, 3, -1))
    assert task.held_out == ((2, 1), (3, 2))


def test_no_pair_need_be_relabelled_or_held_out(tasks, tmp_path):
    tasks("train", "anchor", *TINY_ANCHOR, "--out", tmp_path / "run", "--task.relabelled", "--task.held-out")
    assert len(Run.load(tmp_path / "run").task.trained_pairs) == 16


def test_training_starts_from_the_run_that_is_named(tasks, run_folder, tmp_path):
    tasks("train", "modular", *TINY, "--out", tmp_path / "next", "--start", run_folder, "--start-step", 0)
    first, origin = Run.load(tmp_path / "next").params(0), Run.load(run_folder).params(0)
    assert all(first[name].equal(origin[name]) for name in origin)


def test_list_names_every_preset(tasks, capsys):
    tasks("list")
    out = capsys.readouterr().out
    rows = [line.split("│")[1:3] for line in out.splitlines() if line.startswith("│")]
    named = [(family.strip(), size.strip()) for family, size in rows if family.strip()]
    assert named == [(family, size) for family in FAMILIES for size in sizes(family)]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ("anchor", "modular")])
def test_every_task_trains_from_the_command_line_and_its_run_comes_back(family, tasks, tmp_path):
    short = "--training.steps 2 --training.batch-size 8 --training.snapshots 2 --quiet"
    size = sizes(family)[0]
    tasks("train", family, "--preset", size, "--out", tmp_path / "run", *short.split())
    run = Run.load(tmp_path / "run")
    assert run.finished
    assert run.task == preset(family, size).task
    assert run.config.model == preset(family, size).model


def test_an_mlp_follows_the_length_of_its_task(tasks, tmp_path, capsys):
    short = "--task.n-bits 9 --training.steps 1 --training.snapshots 2 --quiet"
    tasks("train", "parity", "--out", tmp_path / "run", *short.split())
    assert Run.load(tmp_path / "run").config.model.n_ctx == 9
    capsys.readouterr()
    wrong = [*short.split(), "--model.n-ctx", "8"]
    message = refusal(lambda: tasks("train", "parity", "--out", tmp_path / "next", *wrong), capsys)
    assert "--model.n-ctx follows the task: leave it out" in message


def test_an_anchor_may_be_a_permutation_of_the_keys(tasks, tmp_path):
    options = "--task.anchors 6,4,5,7 5,4,6,7 --task.relabelled --task.held-out 2 1 --task.sequence-length 3"
    sizes = "--task.key-low 4 --task.key-high 7 --task.split-modulus 4 --task.d-vocab 8"
    tasks("train", "anchor", *TINY_ANCHOR, "--out", tmp_path / "run", *options.split(), *sizes.split())
    first, second = Run.load(tmp_path / "run").task.anchors
    assert (first.permutation, second.permutation) == ((6, 4, 5, 7), (5, 4, 6, 7))


@pytest.mark.parametrize("options", [(), ("--out", "q"), ("--preset", "tiny", "--seeds", "0")])
def test_a_task_that_does_not_exist_is_refused_with_those_that_do(options, tasks, capsys):
    assert "expected a task among anchor, " in refusal(lambda: tasks("train", "chess", *options), capsys)


def test_show_prints_what_a_folder_holds(tasks, run_folder, capsys):
    tasks("show", run_folder)
    out = capsys.readouterr().out
    assert "run: finished" in out
    assert "0, 6" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--task.operation divide --task.p 9", "expected a prime p for divide, got 9"),
        (
            "--preset huge",
            "expected a preset among tiny, default, fast, paper, explorable, circle for modular, got 'huge'",
        ),
        ("--memory 8bananas", "expected an amount of memory such as 8GB"),
        ("--memory 1kB", "expected memory for one model"),
        ("--seeds 0 0", "expected runs that differ"),
        ("--seeds -1", "expected seeds of at least 0"),
        ("--gammas 0.5 0.6", "expected one gamma per model, 1 in all, got 2"),
        ("--device abacus", "expected a device that is here"),
        ("--threads 0", "expected at least one thread"),
        ("--start nowhere", "expected a run folder with a config.json at nowhere, found nothing"),
        ("--start-step 3", "--start-step is a step of the run that --start names"),
        ("--model.d-vocab 99", "--model.d-vocab follows the task: leave it out"),
    ],
)
def test_a_mistaken_option_ends_in_status_2_and_writes_nothing(options, message, tasks, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        tasks("train", "modular", *TINY, "--out", tmp_path / "run", *options.split())
    assert end.value.code == 2
    out, err = capsys.readouterr()
    text = " ".join((out + err).replace("│", " ").split())  # tyro puts what it refuses itself into a box
    assert message in text
    assert "Traceback" not in text
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_run_is_refused_and_kept(tasks, run_folder, capsys):
    before = digests(run_folder)
    message = refusal(lambda: tasks("train", "modular", *TINY, "--out", run_folder, "--task.data-seed", 1), capsys)
    assert "holds another run (it differs in task)" in message
    assert digests(run_folder) == before


def newer_schema(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"schema_version": 99}
    (folder / "config.json").write_text(json.dumps(config))


def half_a_config(folder: Path) -> None:
    (folder / "config.json").write_text((folder / "config.json").read_text()[:100])


def unknown_field(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["training"]["stepz"] = config["training"].pop("steps")
    (folder / "config.json").write_text(json.dumps(config))


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


CONFIGS = {
    newer_schema: "has schema 99: update rulelens",
    half_a_config: "it is cut short or damaged",
    unknown_field: "TrainingConfig has no field 'stepz': did you mean 'steps'?",
    no_config: "expected a run folder with a config.json",
}


@pytest.mark.parametrize("command", ["show", "probe"])
@pytest.mark.parametrize("damage", CONFIGS, ids=lambda damage: damage.__name__)
def test_both_commands_refuse_a_folder_whose_config_they_cannot_read(
    damage, command, tasks, run_folder, tmp_path, capsys
):
    damage(run_folder)
    before = digests(tmp_path)
    calls = {
        "show": lambda: tasks("show", run_folder),
        "probe": lambda: probe.main([str(run_folder), "--json", str(tmp_path / "found.json")]),
    }
    assert CONFIGS[damage] in refusal(calls[command], capsys)
    assert digests(tmp_path) == before


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def tampered(file: Path) -> None:
    damaged = bytearray(file.read_bytes())
    damaged[-50] ^= 1
    file.write_bytes(damaged)


def pickled(file: Path) -> None:
    file.write_bytes(b"\x80\x04}\x94.")


WEIGHTS = {truncated: "is cut short or damaged", tampered: "does not match its checksum", pickled: "got a pickle"}


@pytest.mark.parametrize("damage", WEIGHTS, ids=lambda damage: damage.__name__)
def test_the_probe_refuses_weights_that_are_not_those_that_were_written(damage, run_folder, tmp_path, capsys):
    damage(run_folder / "snapshots" / "step-0000006.safetensors")
    before = digests(tmp_path)
    report = ["--report", str(tmp_path / "report.html"), "--json", str(tmp_path / "found.json")]
    assert WEIGHTS[damage] in refusal(lambda: probe.main([str(run_folder), *report]), capsys)
    assert digests(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--step 5", "has none at 5: it has 0, 6"),
        ("--step first", "expected a step number, last or all, got 'first'"),
        ("--only astrology", "expected analyses among fourier, progress, representation"),
        ("--report nowhere/report.html", "expected a folder for nowhere/report.html"),
    ],
)
def test_the_probe_refuses_what_it_cannot_do_in_one_line(options, message, run_folder, tmp_path, capsys):
    before = digests(tmp_path)
    assert message in refusal(lambda: probe.main([str(run_folder), *options.split()]), capsys)
    assert digests(tmp_path) == before


def test_outside_a_checkout_the_probe_says_what_to_give_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "there is no checkpoints/ here: python -m interp.probe RUN" in refusal(lambda: probe.main([]), capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("module", "words"), [("tasks", ["show"]), ("interp.probe", []), ("interp", ["probe"])])
def test_a_mistake_shows_no_traceback_in_a_process_of_its_own(module, words, tmp_path):
    child = subprocess.run(
        [sys.executable, "-m", module, *words, str(tmp_path / "nothing")], capture_output=True, text=True, check=False
    )
    assert (child.returncode, child.stdout) == (2, "")
    assert child.stderr.startswith("error: expected a run folder")
    assert child.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_rulelens_passes_each_word_on_and_refuses_others(run_folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["rulelens", "show", str(run_folder)])
    rulelens.main()
    assert "finished" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["rulelens", "probe", str(run_folder), "--only", "rank"])
    rulelens.main()
    said = capsys.readouterr().out
    assert f"{run_folder.name}, step" in said
    assert "modular-addition" not in said  # which a probe without a folder would show
    assert "rank: mean relative stable rank" in said
    assert "fourier: " not in said
    monkeypatch.setattr("sys.argv", ["rulelens", "prove"])
    assert "list, train, sweep, show, probe, got 'prove'" in refusal(rulelens.main, capsys)


@pytest.mark.slow
def test_a_folder_still_being_trained_is_probed_at_its_last_whole_snapshot(run_folder, tmp_path):
    metrics = (run_folder / "metrics.jsonl").read_text().splitlines()
    (run_folder / "metrics.jsonl").write_text("\n".join(metrics[:-1]) + metrics[-1][:20])
    (run_folder / "snapshots" / "step-0000006.safetensors").rename(
        run_folder / "snapshots" / ".step-0000006.safetensors.7.tmp"
    )
    assert not Run.load(run_folder).finished
    probe.main([str(run_folder), "--only", "rank", "--quiet", "--json", str(tmp_path / "found.json")])
    (found,) = json.loads((tmp_path / "found.json").read_text())
    assert (found["run"], found["step"]) == (str(run_folder), 0)
    assert set(found["performance"]) == {"train_loss", "test_loss", "train_accuracy", "test_accuracy"}
