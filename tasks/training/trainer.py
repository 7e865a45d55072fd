"""The one training loop: a stack of M models of one shape, M = 1 being the ordinary case.

* Members differ in seed, and in whatever ``per_model`` gives them; a member's data, initial weights and batches depend
  on nothing else in its stack, and on CPU with one thread its weights come out bit-equal to those of the model trained
  alone (but for gelu in float64, whose error function rounds differently at the end of a tensor). That holds where
  batched products round as single ones do, which ``tasks.processor`` asks for; where they do not, ``train`` warns.
* A batch is a function of (seed, step), drawn from the training set or, of data without end, made by the task. Nothing
  reads global random state.
* Killed at any moment, the same call continues from ``resume.safetensors`` to the same bits. One process at a time
  trains in a folder; another one is refused.
* The caller's torch is left as it was, and decides nothing (``tasks.surroundings``).
* A member whose loss falls below ``stop_below`` leaves the stack; the others go on.
"""

import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tasks.base import EndlessTask, Examples, Task, UserError, answer_positions, as_tensor, generator
from tasks.models.family import Inputs, Targets
from tasks.models.initialization import Initialization, initialize
from tasks.processor import warn_where_bits_differ
from tasks.registry import model_family
from tasks.surroundings import ordinary, ordinary_torch
from tasks.training.config import TrainingConfig
from tasks.training.gradients import GradientRules
from tasks.training.lock import sole_writer
from tasks.training.machine import check_compiler, tuned_for_training
from tasks.training.members import folders, members, refuse_other_runs
from tasks.training.memory import largest_stack
from tasks.training.objective import CHUNK, mean_loss, performance
from tasks.training.optimizer import Optimizer, StackedParameters, optimizer_class
from tasks.training.run import Run, RunConfig, is_final, read_metrics
from tasks.training.schedule import learning_rate_factor, snapshot_steps
from tasks.training.snapshots import read_tensors, write_tensors

OnEvaluation = Callable[[int, list[dict[str, Any]]], None]
"""Called with the step and one row of metrics per model that is still training."""


@ordinary_torch()
def train(
    task: Task,
    model: Any,
    init: Initialization | None = None,
    training: TrainingConfig | None = None,
    *,
    seeds: Iterable[int] = (0,),
    per_model: Mapping[str, Sequence[float | None]] | None = None,
    out: str | Path | Sequence[str | Path] | None = None,
    resume_file: str | Path | None = None,
    device: str = "cpu",
    start: tuple[Run, int] | None = None,
    memory: int | None = None,
    compiled: bool = False,
    command: str | None = None,
    on_evaluation: OnEvaluation | None = None,
    resume_every: float = 30.0,
) -> list[Run]:
    """The trained runs, one per seed.

    Args:
        task, model, init, training: what is learned, by which architecture, from which weights, and how.
        seeds: one model each; the seed decides initial weights and the order of batches.
        per_model: field of ``PER_MODEL`` → one value per model.
        out: one run writes this folder, several write ``out/seed-0`` and so on; ``None``: a temporary folder that lives
            as long as the runs; or one folder per run. A folder that holds a part of the same training is continued, a
            finished one returned.
        resume_file: what an interrupted training goes on from; ``None``: ``resume.safetensors`` in ``out``. To be given
            with several folders.
        device: where tensors live; results are exact on ``cpu`` only.
        start: a run and a step whose weights every model starts from, instead of ``init``.
        memory: bytes that training may take besides the program and the data: the models train in as few stacks as
            fit, one after the other, which changes no result (an interrupted stack goes on as it was). ``None``: all in
            one.
        compiled: let ``torch.compile`` fuse a training step, which takes it half a minute at the start and a C++
            compiler, and changes the last bits of the result.
        command: recorded in the run folder.
        resume_every: seconds between resume files.

    Raises:
        UserError: the folder holds another run, or another process trains there; ``per_model`` has an unknown field or
            the wrong length; no such start or device; a negative seed; no memory for one model; no compiler.
    """
    _check_device(device)
    if compiled:
        check_compiler()
    init, training, per_model = init or Initialization(), training or TrainingConfig(), per_model or {}
    configs = members(task, model, init, training, list(seeds), per_model, start, command)
    at_once = None if memory is None else largest_stack(task, model, training, memory)
    where = tempfile.mkdtemp(prefix="rulelens-") if out is None else out
    paths, resume = folders(configs, per_model, where, resume_file)
    if len(configs) > 1:
        warn_where_bits_differ()
    # the default resume file is shared by every training in ``out``, so its folder is locked as well
    locked = paths if resume_file is not None else [*paths, resume.parent]
    if all(_finished(path) for path in paths) and not resume.exists():
        runs = [Run.load(path) for path in paths]
    else:
        with sole_writer(locked):
            refuse_other_runs(paths, configs)  # again: another process may have begun one since
            runs = [Run.create(path, config) for path, config in zip(paths, configs, strict=True)]
            _delete_leftovers(paths, resume)
            with tuned_for_training():
                while pending := [run for run in runs if not run.finished]:
                    Stack(pending, resume, device, start, at_once, compiled).train(on_evaluation, resume_every)
            resume.unlink(missing_ok=True)
    if out is None:
        weakref.finalize(runs[0], rmtree, resume.parent, ignore_errors=True)
        for run in runs[1:]:
            run.__dict__["_keeps_folder"] = runs[0]
    return runs


def _finished(path: Path) -> bool:
    """Whether the folder holds a run that came to its end."""
    return (path / "config.json").is_file() and is_final(read_metrics(path))


def _delete_leftovers(paths: Sequence[Path], resume: Path) -> None:
    """Delete the temporary files of a process that was killed while it wrote: the locks say that none is at work."""
    of_runs = (file for path in paths for file in path.rglob(".*.tmp"))
    for leftover in [*resume.parent.glob(f".{resume.name}.*.tmp"), *of_runs]:
        leftover.unlink(missing_ok=True)


class Stack:
    """Models in training: their parameters, optimiser and place in the schedule.

    Of ``runs`` it holds those that the resume file interrupted, or else the first ``at_once``.
    """

    def __init__(
        self,
        runs: list[Run],
        resume_file: Path,
        device: str = "cpu",
        start: tuple[Run, int] | None = None,
        at_once: int | None = None,
        compiled: bool = False,
    ) -> None:
        config = runs[0].config
        self.runs = runs[:at_once]
        self.resume_file = resume_file
        self.device = device
        self.training = config.training
        self.model = config.model
        self.task = config.task
        self.family = model_family(config.model)
        self.step: int = 0
        self.sets = self.task.evaluation_sets()
        self.asked = answer_positions(self.task)
        train_set = self.task.train_set()
        self.prepared = None
        if not isinstance(self.task, EndlessTask):
            everything = [train_set.inputs, *(examples.inputs for examples in self.sets.values())]
            self.prepared = self.family.prepare(torch.cat(everything)).to(device)
        self.train_set = _on(train_set, device)
        self.sets = {name: _on(examples, device) for name, examples in self.sets.items()}
        self.epochs: dict[int, tuple[int, Tensor]] = {}
        if compiled:
            torch.compiler.reset()  # it compiles a function for eight settings and then, silently, no more
        self.objective = torch.compile(mean_loss) if compiled else mean_loss

        saved, place = read_tensors(resume_file) if resume_file.is_file() else ({}, {})
        rows = {run: row for run in runs if (row := _row(run, resume_file, place)) is not None}
        self.resumed = bool(rows)
        if rows:
            self.runs, self.step = list(rows), place["step"]
        for run in self.runs:
            run.cut_back(self.step if rows else None)
        self._build([_initial(run.config, start) for run in self.runs])
        if rows:
            for name, state in self._state().items():
                state.copy_(saved[name][list(rows.values())])

    def _build(self, members: list[dict[str, Tensor]]) -> None:
        stacked = {name: torch.stack([params[name] for params in members]).to(self.device) for name in members[0]}
        self.params = StackedParameters(stacked)
        decay = torch.tensor([run.config.training.weight_decay for run in self.runs], dtype=torch.float64)
        self.optimizer: Optimizer = optimizer_class(self.training.optimizer)(self.params, self.training, decay)
        penalty = [run.config.training.l1_penalty for run in self.runs]
        self.rules = GradientRules(self.params, self.training, torch.tensor(penalty, dtype=torch.float64))
        peak = [run.config.training.learning_rate for run in self.runs]
        self.peak = torch.tensor(peak, dtype=torch.float64)

    def _state(self) -> dict[str, Tensor]:
        """Everything that a step leaves for the next one, each [model, n]."""
        state = {"values": self.params.values.detach(), **self.optimizer.state}
        average = self.rules.average
        return state if average is None else state | {"average": average}

    def train(self, on_evaluation: OnEvaluation | None, resume_every: float) -> None:
        """Train every model to its end."""
        kept = set(snapshot_steps(self.training))
        saved_at = time.monotonic()
        while True:
            if not self.resumed:
                last = self.step == self.training.steps
                if last or self.step % self.training.evaluate_every == 0:
                    self._evaluate(last, on_evaluation)
                if self.step in kept:
                    for index, run in enumerate(self.runs):
                        run.write_snapshot(self.step, self.params.member(index))
                if last or not self.runs:
                    break
                if self.step and time.monotonic() - saved_at >= resume_every:
                    self._save()
                    saved_at = time.monotonic()
            self.resumed = False
            self.update()
        self.resume_file.unlink(missing_ok=True)

    def update(self) -> None:
        """One step of the optimiser."""
        self.params.differentiate(self.loss())
        self.rules.apply(self.step)
        self.optimizer.step(self.peak * learning_rate_factor(self.training, self.step), self.step)
        self.step += 1

    def loss(self) -> Float[Tensor, ""]:
        """The sum over models of the loss on this step's batch."""
        t = self.training
        settings = (self.family, self.model, self.asked, self.prepared)
        return self.objective(self.params.tensors, *self.batch(), *settings, t.autocast, t.objective, t.loss_dtype)

    def batch(self) -> tuple[Inputs, Targets]:
        """The examples of this step: for each model a function of its seed and the step."""
        size = self.training.batch_size
        if isinstance(self.task, EndlessTask) and size is not None:
            seeds = [run.config.seed for run in self.runs]
            fresh = {seed: _on(self.task.batch(seed, self.step, size), self.device) for seed in dict.fromkeys(seeds)}
            inputs = torch.stack([fresh[seed].inputs for seed in seeds])
            return inputs, torch.stack([fresh[seed].targets for seed in seeds])
        n = len(self.train_set)
        if size is None:
            inputs, targets = self.train_set.inputs, self.train_set.targets
            return inputs.expand(len(self.runs), *inputs.shape), targets.expand(len(self.runs), *targets.shape)
        per_epoch = max(n // size, 1)
        epoch, place = divmod(self.step, per_epoch)
        rows = []
        for run in self.runs:
            seed = run.config.seed
            if seed not in self.epochs or self.epochs[seed][0] != epoch:
                order = generator(seed, "order", epoch).permutation(n)
                self.epochs[seed] = (epoch, as_tensor(order).to(self.device))
            rows.append(self.epochs[seed][1][place * size : (place + 1) * size])
        chosen = torch.stack(rows)
        return self.train_set.inputs[chosen], self.train_set.targets[chosen]

    @torch.no_grad()
    def _evaluate(self, last: bool, on_evaluation: OnEvaluation | None) -> None:
        rate = (self.peak * learning_rate_factor(self.training, self.step)).tolist()
        rows: list[dict[str, Any]] = [{"step": self.step, "learning_rate": value} for value in rate]
        for name, examples in self.sets.items():
            logits = self._logits(examples)
            for index, row in enumerate(rows):
                row.update(performance(logits[index], examples.targets, examples.rules, name, self.training.objective))
        bound, watched = self.training.stop_below, f"{self.training.stop_on}_loss"
        done = [last or (bound is not None and row[watched] < bound) for row in rows]
        for index, (run, row) in enumerate(zip(self.runs, rows, strict=True)):
            if done[index]:
                run.write_snapshot(self.step, self.params.member(index))
                row["final"] = True
            run.append_metrics(row)
        if on_evaluation is not None:
            on_evaluation(self.step, rows)
        if any(done) and not last:
            self._keep([index for index, end in enumerate(done) if not end])

    def _keep(self, indices: list[int]) -> None:
        """Go on with these members only."""
        old, state = self.params, self._state()
        self.runs = [self.runs[index] for index in indices]
        if not self.runs:
            return
        self._build([old.member(index) for index in indices])
        for name, kept in self._state().items():
            kept.copy_(state[name][indices])

    def _logits(self, examples: Examples) -> Tensor:
        """Logits of every model at the answer position, [model, example, d_vocab_out]; of several answers, [model,
        example, answer, d_vocab_out]."""
        chunks = [
            self.family.forward(
                self.params.tensors,
                chunk.expand(len(self.runs), *chunk.shape),
                self.model,
                answer_position=self.asked,
                prepared=self.prepared,
            ).squeeze(2)
            for chunk in examples.inputs.split(CHUNK)
        ]
        return torch.cat(chunks, dim=1)

    def _save(self) -> None:
        """Write the resume file; the previous one stays until this one is whole."""
        write_tensors(self.resume_file, self._state(), {"step": self.step, "runs": [run.name for run in self.runs]})


def _row(run: Run, resume_file: Path, place: Mapping[str, Any]) -> int | None:
    """A run's place in the resume file. A lone run is the only one in its own; folders may have been renamed since.

    None where the folder does not reach as far: the run was begun anew, in another stack, after the file was written.
    """
    ends = [name.rpartition("/")[2] for name in place.get("runs", [])]
    lone = run.path == resume_file.parent
    if not ends or not (lone or run.path.name in ends):
        return None
    step, training = place["step"], run.config.training
    evaluated = {row["step"] for row in run.metrics}
    whole = evaluated.issuperset(range(0, step + 1, training.evaluate_every)) and set(run.steps).issuperset(
        kept for kept in snapshot_steps(training) if kept <= step
    )
    return (0 if lone else ends.index(run.path.name)) if whole else None


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise UserError(
            f"expected a device that is here, such as cpu, got {device!r}: {str(error).splitlines()[0]}"
        ) from error


def _initial(config: RunConfig, start: tuple[Run, int] | None) -> dict[str, Tensor]:
    if start is not None:
        run, step = start
        return {name: value.to(getattr(torch, config.training.dtype)) for name, value in run.params(step).items()}
    shapes = model_family(config.model).shapes(config.model)
    return initialize(shapes, config.model, config.init, config.seed, config.training.dtype)


def _on(examples: Examples, device: str) -> Examples:
    return Examples(
        inputs=ordinary(examples.inputs).to(device),
        targets=ordinary(examples.targets).to(device),
        rules={name: ordinary(answers).to(device) for name, answers in examples.rules.items()},
    )
