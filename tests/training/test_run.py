"""Run folders: what stands in them, what is read back, and what is refused."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from interp.subject import Subject
from tasks.base import UserError, digest
from tasks.training.run import SCHEMA_VERSION, Run
from tasks.training.snapshots import read_tensors, write_tensors
from tasks.training.trainer import train


@pytest.fixture
def folder(modular: SimpleNamespace, tmp_path: Path) -> Path:
    """A finished run."""
    modular.training = replace(modular.training, steps=6, snapshots=3)
    train(**vars(modular), out=tmp_path / "run", command="python -m tasks train modular")
    return tmp_path / "run"


def edit(folder: Path, **changes) -> None:
    """Write fields of config.json anew; a field that is None goes."""
    values = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def test_a_run_folder_has_the_layout_of_the_design_and_nothing_else(folder):
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    snapshots = {f"snapshots/step-{step:07d}.safetensors" for step in (0, 1, 6)}
    assert files == {"config.json", "split.safetensors", "metrics.jsonl", ".lock"} | snapshots


def test_the_config_says_what_was_trained_how_and_with_what(folder, modular):
    config = json.loads((folder / "config.json").read_text())
    assert config["schema_version"] == SCHEMA_VERSION
    assert config["task"] == {"family": "modular", **modular.task.to_dict()}
    assert config["training"] == modular.training.to_dict()
    assert (config["seed"], config["command"], config["start"]) == (0, "python -m tasks train modular", None)
    assert (
        config["versions"]["torch"] == torch.__version__.partition("+")[0]
        or config["versions"]["torch"] == torch.__version__
    )


def test_loading_gives_back_what_was_trained(folder, modular):
    run = Run.load(folder)
    assert (run.config.task, run.config.model, run.config.init, run.config.training) == tuple(vars(modular).values())
    assert run.finished
    assert run.name == "run"
    run.check_data()


def test_no_file_is_a_pickle(folder):
    for file in folder.rglob("*"):
        if file.is_file():
            start = file.read_bytes()[:2]
            assert start not in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@pytest.mark.parametrize("family", ["modular", "anchor"])
def test_the_split_file_holds_masks_and_seeds_and_never_the_sequences(family, request, tmp_path):
    p = request.getfixturevalue(family)
    train(p.task, p.model, p.init, replace(p.training, steps=1), out=tmp_path / "run")
    tensors, metadata = read_tensors(tmp_path / "run" / "split.safetensors")
    assert set(tensors) == {"data_seed", "train_mask" if family == "modular" else "seen"}
    assert metadata == {"train_set_sha256": digest(p.task.train_set())}
    assert sum(tensor.numel() for tensor in tensors.values()) < p.task.train_set().inputs.numel()


def test_a_snapshot_carries_its_step_and_config_and_the_weights_under_their_names(folder):
    tensors, metadata = read_tensors(folder / "snapshots" / "step-0000006.safetensors")
    assert metadata == {"step": 6, "config": json.loads((folder / "config.json").read_text())}
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "embed.W_E": (8, 16),
        "pos_embed.W_pos": (3, 16),
        "blocks.0.attn.W_Q": (2, 16, 8),
        "blocks.0.attn.W_K": (2, 16, 8),
        "blocks.0.attn.W_V": (2, 16, 8),
        "blocks.0.attn.W_O": (2, 8, 16),
        "blocks.0.mlp.W_in": (16, 20),
        "blocks.0.mlp.b_in": (20,),
        "blocks.0.mlp.W_out": (20, 16),
        "blocks.0.mlp.b_out": (16,),
        "unembed.W_U": (16, 7),
    }


def test_a_run_folder_needs_nothing_but_its_path(folder):
    before = Run.load(folder).params()
    moved = folder.rename(folder.parent / "elsewhere")
    subject = Subject.load(moved)
    assert subject.name == "elsewhere"
    assert all(subject.params[name].equal(value) for name, value in before.items())


def test_a_run_named_by_a_dot_goes_by_the_name_of_its_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert Run.load(".").name == "run"


def test_an_older_schema_is_migrated_in_memory(folder, contents):
    edit(folder, schema_version=None, start=None, command=None, versions=None)
    before = contents(folder)
    run = Run.load(folder)
    assert (run.config.start, run.config.command, run.config.versions) == (None, None, {})
    assert run.config.to_dict()["schema_version"] == SCHEMA_VERSION
    assert Subject.load(run).step == 6
    assert contents(folder) == before


def test_a_run_in_training_is_read_at_its_last_whole_snapshot(modular, tmp_path):
    class Interrupted(Exception):
        pass

    def interrupt(step, rows):
        if step == 12:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(**vars(modular), out=tmp_path / "run", on_evaluation=interrupt)
    snapshots = tmp_path / "run" / "snapshots"
    whole = (snapshots / "step-0000005.safetensors").read_bytes()
    (snapshots / ".step-0000012.safetensors.4711.tmp").write_bytes(whole[:1000])
    (snapshots / "step-0000012 (copy).safetensors").write_bytes(whole[:1000])
    run = Run.load(tmp_path / "run")
    assert not run.finished
    assert run.steps == [0, 1, 5]
    assert Subject.load(run).step == 5


def test_a_run_without_a_snapshot_yet_says_so(folder):
    for file in (folder / "snapshots").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"expected snapshots in .*, found none yet: wait for the first"):
        Run.load(folder).params()


def last_snapshot(folder: Path) -> Path:
    return folder / "snapshots" / "step-0000006.safetensors"


def truncate(folder: Path) -> None:
    last_snapshot(folder).write_bytes(last_snapshot(folder).read_bytes()[:-7])


def flip_a_bit(folder: Path) -> None:
    damaged = bytearray(last_snapshot(folder).read_bytes())
    damaged[-100] ^= 4
    last_snapshot(folder).write_bytes(damaged)


def pickle_the_weights(folder: Path) -> None:
    last_snapshot(folder).write_bytes(pickle.dumps({"W": [1.0]}))


def reshape_a_tensor(folder: Path) -> None:
    tensors, metadata = read_tensors(last_snapshot(folder))
    write_tensors(last_snapshot(folder), tensors | {"unembed.W_U": tensors["unembed.W_U"][:, :-1]}, metadata)


def drop_a_tensor(folder: Path) -> None:
    tensors, metadata = read_tensors(last_snapshot(folder))
    write_tensors(last_snapshot(folder), {k: v for k, v in tensors.items() if k != "embed.W_E"}, metadata)


def change_the_data(folder: Path) -> None:
    edit(folder, task=json.loads((folder / "config.json").read_text())["task"] | {"data_seed": 1})


def remove_the_split(folder: Path) -> None:
    (folder / "split.safetensors").unlink()


WEIGHTS = {
    truncate: r"expected a whole safetensors file, .*step-0000006\.safetensors is cut short or damaged",
    flip_a_bit: "does not match its checksum",
    pickle_the_weights: "expected safetensors, got a pickle at",
    reshape_a_tensor: r"expected unembed\.W_U of shape \(16, 7\) in .*, got \(16, 6\)",
    drop_a_tensor: r"expected embed\.W_E of shape \(8, 16\) in .*, got None",
    change_the_data: "is not the one it was trained on: its config was edited",
    remove_the_split: r"expected a safetensors file at .*split\.safetensors, found none",
}


@pytest.mark.parametrize("damage", WEIGHTS, ids=lambda damage: damage.__name__)
def test_a_subject_of_a_damaged_folder_is_refused_in_one_line(damage, folder):
    damage(folder)
    with pytest.raises(UserError, match=WEIGHTS[damage]) as refusal:
        Subject.load(folder)
    assert "\n" not in str(refusal.value)


CONFIGS = {
    "newer schema": ({"schema_version": SCHEMA_VERSION + 1}, "has schema 2: update rulelens to read it"),
    "a schema before the first": ({"schema_version": -1}, "they are damaged"),
    "unknown field": ({"sede": 3}, r"has no field 'sede': did you mean 'seed'\?"),
    "no seed": ({"seed": None}, "expected seed in"),
    "unknown task": ({"task": {"family": "mod"}}, "expected a task family among .*, got 'mod'"),
    "unknown model": ({"model": {"family": "mamba"}}, "expected a model family among mlp, transformer, got 'mamba'"),
    "unknown option": ({"training": {"step": 3}}, "TrainingConfig has no field 'step': did you mean 'steps'"),
    "missing size": ({"model": {"family": "transformer", "n_layers": 1}}, "they are damaged"),
    "a list for a mapping": ({"model": [1, 2]}, "they are damaged"),
    "a number for a mapping": ({"task": 3}, "they are damaged"),
    "a word for a number": ({"training": {"steps": "many"}}, "they are damaged"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_that_describes_no_run_is_refused_in_one_line(case, folder):
    changes, message = CONFIGS[case]
    edit(folder, **changes)
    with pytest.raises(UserError, match=message) as refusal:
        Run.load(folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", '{"schema_version": "new"}', '{"schema_version": 1e999}', "\x00"]
)
def test_a_config_that_is_no_json_object_is_refused_in_one_line(text, folder):
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json") as refusal:
        Run.load(folder)
    assert "\n" not in str(refusal.value)


def test_a_step_without_a_snapshot_is_refused_with_those_there_are(folder):
    with pytest.raises(UserError, match=r"has none at 5: it has 0, 1, 6$"):
        Run.load(folder).params(5)


@pytest.mark.parametrize("what", ["nothing", "a file", "a folder without one"])
def test_a_path_that_is_no_run_folder_is_refused_by_what_it_is(what, tmp_path):
    path = tmp_path / "x"
    if what == "a file":
        path.write_text("")
    elif what == "a folder without one":
        path.mkdir()
    with pytest.raises(UserError, match=f"expected a run folder with a config.json at .*, found {what}: "):
        Run.load(path)


def test_snapshots_in_float16_are_half_as_large_and_come_back_in_the_type_that_was_trained(modular, tmp_path):
    for dtype, size in (("float32", 0.5), ("float64", 0.25)):
        runs = {}
        for kept in ("same", "float16"):
            modular.training = replace(modular.training, steps=6, snapshots=2, dtype=dtype, snapshot_dtype=kept)
            runs[kept] = Run.load(train(**vars(modular), out=tmp_path / dtype / kept)[0].path)
        whole, rounded = runs["same"].params(), runs["float16"].params()
        for name, value in whole.items():
            assert rounded[name].dtype == value.dtype == getattr(torch, dtype)
            assert torch.equal(rounded[name], value.half().to(value.dtype))
        assert not torch.equal(rounded["embed.W_E"], whole["embed.W_E"])
        assert runs["float16"].metrics == runs["same"].metrics
        raw = [read_tensors(run.path / "snapshots" / "step-0000006.safetensors")[0] for run in runs.values()]
        stored = [sum(value.nbytes for value in tensors.values()) for tensors in raw]
        assert stored[1] == size * stored[0]
        Subject.load(runs["float16"]).performance  # noqa: B018 (computes)


def test_training_goes_on_from_a_snapshot_in_float16(modular, tmp_path):
    modular.training = replace(modular.training, steps=6, snapshots=2, snapshot_dtype="float16")
    first = train(**vars(modular), out=tmp_path / "first")[0]
    second = train(**vars(modular), out=tmp_path / "second", start=(first, 6))[0]
    assert torch.equal(second.params(0)["embed.W_E"], first.params(6)["embed.W_E"])
    modular.init = replace(modular.init, gain=1e6)
    with pytest.raises(UserError, match="expected weights of at most 65,504 for snapshots in float16"):
        train(**vars(modular), out=tmp_path / "large")
    with pytest.raises(UserError, match="expected snapshot_dtype among same, float16, got 'int8'"):
        replace(modular.training, snapshot_dtype="int8")
