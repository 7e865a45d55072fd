"""The training loop: same seed same bits, members of a stack as if alone, and what a run leaves behind."""

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tasks.base import UserError
from tasks.families.modular import ModularArithmetic
from tasks.training.run import Run
from tasks.training.schedule import snapshot_steps
from tasks.training.snapshots import checksum
from tasks.training.trainer import train

ODD = {"d_model": 18, "n_heads": 3, "d_head": 5, "d_mlp": 21}  # no width a multiple of the vector length
SHAPES = {
    "two heads, full batch": ("modular", {}, {}),
    "odd widths, batches": ("modular", ODD, {"batch_size": 5}),
    "attention only, heads of width one": (
        "modular",
        {"d_mlp": None, "n_heads": 2, "d_head": 1, "mlp_bias": False},
        {},
    ),
    "one head of width one": ("modular", {"d_mlp": 1, "n_heads": 1, "d_head": 1}, {}),
    "post-LN, one head, batches": ("anchor", {}, {}),
    "post-LN, two odd heads, full batch": ("anchor", ODD | {"n_heads": 2}, {"batch_size": None}),
    "float64": ("modular", {}, {"dtype": "float64"}),
}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def fit(p, *, model=None, training=None, **options) -> list[Run]:
    return train(p.task, replace(p.model, **model or {}), p.init, replace(p.training, **training or {}), **options)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(anchor):
    first, again, other = (fit(anchor, seeds=[seed])[0] for seed in (0, 0, 1))
    assert equal(first.params(), again.params())
    assert first.metrics == again.metrics
    assert not first.params()["unembed.W_U"].equal(other.params()["unembed.W_U"])


def test_training_neither_reads_nor_moves_global_random_state(modular):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = fit(modular)[0].params()
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(6)
    assert equal(first, fit(modular)[0].params())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_member_of_a_stack_is_bit_equal_to_the_model_trained_alone(shape, request):
    fixture, model, training = SHAPES[shape]
    p = request.getfixturevalue(fixture)
    training = training | {"steps": 12, "evaluate_every": 6}
    alone = {seed: fit(p, model=model, training=training, seeds=[seed])[0] for seed in (0, 1, 2)}
    for seeds in ((2, 0, 1), (4, 3, 1, 2, 0)):
        for run in fit(p, model=model, training=training, seeds=seeds):
            if (seed := run.config.seed) in alone:
                assert equal(run.params(), alone[seed].params())
                assert run.metrics == alone[seed].metrics


def test_training_lowers_the_loss_and_learns_the_shown_table(modular):
    run = fit(modular, training={"steps": 150, "evaluate_every": 50})[0]
    losses = [row["train_loss"] for row in run.metrics]
    assert losses[0] == pytest.approx(math.log(7), rel=0.2)
    assert losses == sorted(losses, reverse=True)
    assert run.metrics[-1]["train_accuracy"] == 1.0


def test_models_of_a_stack_may_differ_in_rate_decay_and_scale_and_each_is_as_if_alone(anchor):
    given = {"learning_rate": [1e-3, 4e-3], "weight_decay": [0.0, 0.5], "gamma": [0.3, 0.8], "ov": [0.2, 1.0]}
    runs = fit(anchor, seeds=[0, 1], per_model=given)
    for index, run in enumerate(runs):
        own = {name: values[index] for name, values in given.items()}
        alone = train(
            anchor.task,
            anchor.model,
            replace(anchor.init, gamma=own["gamma"], ov=own["ov"]),
            replace(anchor.training, learning_rate=own["learning_rate"], weight_decay=own["weight_decay"]),
            seeds=[index],
        )[0]
        assert equal(run.params(), alone.params())
        assert run.config.decides() == alone.config.decides()
    assert runs[0].params(0)["blocks.0.attn.W_V"].std() == pytest.approx(16**-0.2, rel=0.2)
    assert runs[1].params(0)["blocks.0.attn.W_V"].std() == pytest.approx(16**-1.0, rel=0.2)


def test_one_seed_with_several_scales_starts_from_the_same_draw(modular):
    large, small = fit(modular, seeds=[3, 3], per_model={"gamma": [0.3, 0.8]})
    assert (large.path.name, small.path.name) == ("seed-3-gamma-0.3", "seed-3-gamma-0.8")
    ratio = large.params(0)["embed.W_E"] / small.params(0)["embed.W_E"]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 16**0.5), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": []}, "expected at least one seed"),
        ({"seeds": [0, -2]}, "expected seeds of at least 0, got -2"),
        ({"seeds": [0, 0]}, "expected runs that differ, got the same one twice"),
        ({"seeds": [0, 1], "per_model": {"gamma": [0.5]}}, "expected one gamma per model, 2 in all, got 1"),
        ({"per_model": {"beta1": [0.5]}}, "expected per_model fields among learning_rate, .*, got 'beta1'"),
        ({"device": "abacus"}, "expected a device that is here, such as cpu, got 'abacus'"),
        ({"model": {"n_ctx": 2}}, "expected a model with n_ctx of at least 3 for this task, got 2"),
        ({"model": {"d_vocab": 7}}, "expected a model with d_vocab of at least 8 for this task, got 7"),
    ],
)
def test_impossible_requests_are_refused_before_anything_is_written(options, message, modular, tmp_path):
    with pytest.raises(UserError, match=message):
        fit(modular, out=tmp_path / "run", **options)
    assert not list(tmp_path.iterdir())


def test_a_member_that_stops_early_leaves_the_others_bit_unchanged(modular):
    p = modular
    curve = [row["test_loss"] for row in fit(p, seeds=[1])[0].metrics]
    bound = sorted(curve)[0] * 1.0001  # only the lowest evaluation of seed 1 lies below
    others = [seed for seed in (0, 2, 3, 4) if min(r["test_loss"] for r in fit(p, seeds=[seed])[0].metrics) >= bound][
        :2
    ]
    assert others
    runs = fit(p, training={"stop_below": bound}, seeds=[others[0], 1, *others[1:]])
    stopped = next(run for run in runs if run.config.seed == 1)
    expected = fit(p, training={"stop_below": bound}, seeds=[1])[0]
    assert equal(stopped.params(), expected.params())
    assert stopped.metrics == expected.metrics
    assert stopped.metrics[-1]["final"]
    for run in runs:
        if run is not stopped:
            assert run.finished
            assert run.metrics[-1]["step"] == 24
            assert equal(run.params(), fit(p, seeds=[run.config.seed])[0].params())


def test_a_model_stops_at_the_evaluation_where_its_test_loss_falls_below_the_bound(modular):
    run = fit(modular, training={"stop_below": 1e9})[0]
    assert run.steps == [0]
    assert [row["step"] for row in run.metrics] == [0]
    assert run.finished


def test_a_model_stops_where_the_loss_it_is_told_to_watch_falls_below_the_bound(modular):
    whole = fit(modular)[0].metrics
    third = whole[2]
    assert all(third["train_loss"] < min(row["train_loss"], row["test_loss"]) for row in whole[:2])
    assert all(third["train_loss"] * 1.0001 < row["test_loss"] for row in whole)
    bound = third["train_loss"] * 1.0001
    on_train, on_test = (fit(modular, training={"stop_below": bound, "stop_on": part})[0] for part in ("train", "test"))
    assert on_train.metrics[-1]["step"] == third["step"]
    assert on_test.metrics[-1]["step"] == whole[-1]["step"]


def test_training_starts_from_a_snapshot_where_one_is_given(modular):
    origin = fit(modular)[0]
    step = origin.steps[-2]
    run = fit(modular, seeds=[9], start=(origin, step))[0]
    assert equal(run.params(0), origin.params(step))
    assert run.config.start == {
        "run": str(origin.path),
        "step": step,
        "sha256": checksum(origin.params(step)),
    }
    assert not equal(run.params(), origin.params())


def test_a_start_of_another_architecture_or_without_the_step_is_refused(modular):
    origin = fit(modular)[0]
    with pytest.raises(UserError, match="expected a start of the same architecture"):
        fit(modular, model={"d_mlp": 8}, start=(origin, 0))
    with pytest.raises(UserError, match=r"expected a step with a snapshot, .* has none at 7"):
        fit(modular, start=(origin, 7))


def test_the_callback_sees_each_evaluation_of_each_model_as_it_is_recorded(modular):
    seen: list[tuple[int, list[dict]]] = []
    runs = fit(modular, seeds=[0, 1], on_evaluation=lambda step, rows: seen.append((step, [dict(row) for row in rows])))
    assert [step for step, _ in seen] == [0, 6, 12, 18, 24]
    for index, run in enumerate(runs):
        assert [rows[index] for _, rows in seen] == run.metrics


def test_snapshots_are_kept_at_the_first_step_on_a_log_scale_and_at_the_last(modular):
    run = fit(modular)[0]
    assert run.steps == snapshot_steps(modular.training) == [0, 1, 5, 24]


def test_metrics_come_at_every_evaluation_and_at_the_last_step_which_is_marked_final(modular):
    rows = fit(modular, training={"steps": 14})[0].metrics
    assert [row["step"] for row in rows] == [0, 6, 12, 14]
    assert [row.get("final", False) for row in rows] == [False, False, False, True]
    assert set(rows[0]) == {"step", "learning_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy"}
    assert rows[0]["learning_rate"] == 0
    assert rows[1]["learning_rate"] == pytest.approx(6e-3)


def test_recorded_losses_are_those_of_the_recorded_weights(anchor):
    from interp.subject import Subject

    run = fit(anchor)[0]
    again = Subject.load(run).performance
    recorded = {key: value for key, value in run.metrics[-1].items() if key in again}
    assert set(recorded) == set(again)
    assert {"held_out_inferential", "held_out_symmetric", "test_accuracy"} <= set(recorded)
    # float32 logits of two batch sizes
    assert recorded == pytest.approx(again, rel=1e-5)


def test_a_table_without_a_test_part_has_null_test_metrics(modular):
    run = train(replace(modular.task, train_fraction=1.0), modular.model, modular.init, modular.training)[0]
    last = json.loads((run.path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["test_loss"] is None
    assert last["test_accuracy"] is None
    assert last["train_loss"] > 0


def test_without_a_folder_the_runs_live_as_long_as_they_are_held(modular):
    runs = fit(modular, seeds=[0, 1])
    folder = runs[0].path.parent
    assert folder.is_dir()
    last = runs.pop()
    del runs
    assert last.params()
    del last
    assert not folder.exists()


def test_batches_are_a_reshuffle_per_epoch_that_drops_the_last_partial_one(modular):
    from tasks.training.trainer import Stack

    runs = fit(modular, training={"batch_size": 8, "steps": 1, "snapshots": 2})
    stack = Stack(runs, runs[0].path / "resume.safetensors", "cpu", None)
    n = len(modular.task.train_set())
    assert n == 29
    epochs = []
    for epoch in range(2):
        batches = []
        for place in range(3):
            stack.step = 3 * epoch + place
            batches += [tuple(row) for row in stack.batch()[0][0].tolist()]
        assert len(set(batches)) == 24
        epochs.append(batches)
    assert epochs[0] != epochs[1]


def test_a_mask_of_ones_own_travels_with_the_run(modular):
    mask = torch.arange(49) % 2 == 0
    task = ModularArithmetic(p=7, split=mask)
    run = train(task, modular.model, modular.init, modular.training)[0]
    loaded = Run.load(run.path)
    loaded.check_data()
    assert loaded.task.split_tensors()["train_mask"].equal(mask)


def test_bfloat16_products_train_almost_the_same_and_evaluations_are_not_rounded(anchor):
    plain, rounded = (fit(anchor, training={"autocast": autocast})[0] for autocast in ("none", "bfloat16"))
    assert plain.metrics[0] == rounded.metrics[0]  # before the first update: the same weights, the same precision
    assert not equal(plain.params(), rounded.params())
    assert rounded.metrics[-1]["train_loss"] == pytest.approx(plain.metrics[-1]["train_loss"], rel=0.02)


# in a process of its own: the suite's checks of array shapes cannot be traced
COMPILED = """
from dataclasses import replace
from tasks import ModularArithmetic
from tasks.presets import preset
from tasks.training import train

def losses(**changes):
    compiled = changes.pop("compiled")
    p = preset("modular", "tiny")
    # a small model and rate, so that what rounds differently stays small
    task = ModularArithmetic(p=23, train_fraction=0.7)
    model = replace(p.model, d_model=32, n_heads=2, d_mlp=64).for_task(task)
    training = replace(p.training, steps=40, evaluate_every=10, learning_rate=3e-3, decay="constant", **changes)
    runs = train(task, model, p.init, training, seeds=range(3), compiled=compiled)
    return [[row["train_loss"] for row in run.metrics] for run in runs]

eager, compiled = losses(compiled=False), losses(compiled=True)
print(max(abs(a / b - 1) for a, b in zip(sum(eager, []), sum(compiled, []))), eager != compiled)
second_best = sorted(rows[1] for rows in eager)[1]
print([len(rows) for rows in losses(compiled=True, stop_on="train", stop_below=second_best + 1e-4)])
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_compiled_step_is_the_same_step_to_rounding_and_goes_on_when_members_leave():
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    apart, compiled, ends = done.stdout.replace("\n", " ").split(maxsplit=2)
    assert float(apart) < 1e-5
    assert compiled == "True"  # fused sums round otherwise: something was compiled
    assert sorted(json.loads(ends))[:2] == [2, 2]  # stopped at their second evaluation
    assert max(json.loads(ends)) > 2


def test_a_compiled_training_without_a_compiler_is_refused_before_anything_is_written(modular, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="expected the C\\+\\+ compiler no-such-compiler"):
        fit(modular, out=tmp_path / "run", compiled=True)
    assert not (tmp_path / "run").exists()


def test_denormal_numbers_are_zero_in_training_and_numbers_again_after_it(modular):
    seen = []
    fit(modular, on_evaluation=lambda step, rows: seen.append(float(torch.tensor(1e-30) * torch.tensor(1e-10))))
    assert set(seen) == {0.0}
    assert float(torch.tensor(1e-30) * torch.tensor(1e-10)) > 0
    torch.set_flush_denormal(True)  # as its caller may have wanted it
    try:
        fit(modular)
        assert float(torch.tensor(1e-30) * torch.tensor(1e-10)) == 0
    finally:
        torch.set_flush_denormal(False)


FAULTS = """
import resource, sys, torch
from tasks.presets import preset
from tasks.training.trainer import train

torch.set_num_threads(1)
if sys.argv[1] == "trained":
    p = preset("modular", "tiny")
    train(p.task, p.model, p.init, p.training.__class__(steps=3))
else:
    torch.zeros(1)
a = torch.ones(1 << 18)  # a megabyte

def loops(n):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(n):
        b = a + 1
        c = b * 2
        d = c - b
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

loops(20)
print(loops(200))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="about glibc")
def test_after_training_tensors_are_allocated_as_fast_as_before() -> None:
    faults = {
        state: int(subprocess.run([sys.executable, "-c", FAULTS, state], capture_output=True, check=True).stdout)
        for state in ("trained", "untouched")
    }
    assert faults["trained"] <= faults["untouched"] + 1_000  # one page fault per 4 kB and loop would be 150,000


@pytest.mark.parametrize(
    "tunables", [{}, {"MALLOC_TRIM_THRESHOLD_": "1"}, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}]
)
def test_the_allocator_is_tuned_unless_the_environment_says_how_and_given_back_in_any_case(
    modular, monkeypatch, tunables
):
    asked = []

    class Library:
        def gnu_get_libc_version(self): ...
        def mallopt(self, parameter, value):
            asked.append((parameter, value))

        def malloc_trim(self, pad):
            asked.append("trim")

    monkeypatch.setattr("tasks.training.machine.ctypes.CDLL", lambda name: Library())
    monkeypatch.setattr("tasks.training.machine.sys.platform", "linux")
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_TUNABLES"))]:
        monkeypatch.delenv(name)  # a Dask cluster of another test leaves some
    for name, value in tunables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ZeroDivisionError):
        fit(modular, on_evaluation=lambda step, rows: 1 / 0)
    kept, given_back = [(-4, 0), (-1, -1)], [(-3, 32 << 20), (-1, 64 << 20), (-4, 65536), "trim"]  # see mallopt(3)
    assert asked == ([] if tunables else kept + given_back)
