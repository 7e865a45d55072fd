"""What an analysis looks at: one model with its task, one run over its steps, or runs that differ in the seed.

Whatever comes in (a run folder, our model, a transformer-lens model or state dict) is converted at this door, so that
analyses know one dialect: a parameter dictionary under transformer-lens's names and the one forward pass. Interventions
go through its tap. transformer-lens is loaded only when a model object is asked for or given.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.statistics import random_weights
from tasks.base import Task, UserError, answer_positions, as_task
from tasks.models.config import Layout, refuse_unfit
from tasks.models.family import Tap, untapped
from tasks.registry import hooked_model, model_family
from tasks.surroundings import ordinary, ordinary_torch
from tasks.training.objective import performance
from tasks.training.run import Run

if TYPE_CHECKING:
    from tasks.models.hooked import HookedTransformer
    from tasks.models.hooked_mlp import HookedMLP

Edit = Callable[[Tensor], Tensor]
"""Takes an activation [example, …] and returns what takes its place."""
_CHUNK = 2048


class Subject:
    """One model, its task, one step.

    Args:
        model: a ``HookedTransformer`` or ``HookedMLP`` of ours, a transformer-lens model, or a state dict in
            transformer-lens's names.
        task: what it was trained on.
        step: when, if known. ``name``: how reports call it.

    Raises:
        UserError: the model has too small a vocabulary or too few positions for the task; a model that cannot be
            converted.
    """

    def __init__(self, model: Any, task: Task, *, step: int | None = None, name: str = "model") -> None:
        from tasks.models.hooked import HookedModel, HookedTransformer

        ours = model if isinstance(model, HookedModel) else HookedTransformer.from_transformer_lens(model)
        params = {key: value.detach().cpu() for key, value in ours.state_dict().items()}
        self._set(ours.config, params, as_task(task), step, name, None)

    @ordinary_torch()
    def _set(
        self, config: Any, params: Mapping[str, Tensor], task: Task, step: int | None, name: str, run: Run | None
    ) -> None:
        refuse_unfit(config, task, ": is it the task that the model was trained on?")
        self.config = config
        self.params = {name: ordinary(value) for name, value in params.items()}
        self.task = task
        self.step = step
        self.name = name
        self.run = run

    @classmethod
    def of(
        cls,
        config: Any,
        params: Mapping[str, Float[Tensor, "..."]],
        task: Task,
        *,
        step: int | None = None,
        name: str = "model",
        run: Run | None = None,
    ) -> "Subject":
        """The subject with this configuration and these parameters; needs no model object and no transformer-lens."""
        subject = cls.__new__(cls)
        subject._set(config, params, task, step, name, run)
        return subject

    @classmethod
    def load(
        cls,
        path: str | Path | Run,
        step: int | Literal["last"] = "last",
        *,
        layout: Layout | None = None,
        task: Task | None = None,
        **architecture: Any,
    ) -> "Subject":
        """The model of a run folder at a step (of a run in training, its last whole snapshot), or published weights.

        Published weights compute in the precision they are stored in. float32 logits leave four digits of a loss near
        1e-6; ``subject.with_params({name: value.double() for name, value in subject.params.items()})`` has them all.

        Args:
            path: a run folder, or a file of weights.
            layout, task: of a file of weights: how it is written, what the model was trained on.
            architecture: of a file of weights: what it does not show; see ``tasks.models.layouts.read``.

        Raises:
            UserError: no run folder, no such step, damaged files, or data that are not those it was trained on; weights
                that are not those of layout and task.
        """
        if layout is not None or (not isinstance(path, Run) and Path(path).is_file()):
            return cls._published(path, step, layout, task, architecture)
        if task is not None or architecture:
            raise UserError("a run folder says its task and architecture itself: give them for a file of weights alone")
        run = path if isinstance(path, Run) else Run.load(path)
        run.check_data()
        at = run.resolve(step)
        return cls.of(run.config.model, run.params(at), run.task, step=at, name=run.name, run=run)

    @classmethod
    def _published(
        cls, path: Any, step: Any, layout: str | None, task: Task | None, given: dict[str, Any]
    ) -> "Subject":
        from tasks.models.layouts import LAYOUTS, read

        if layout is None or task is None:
            raise UserError(
                f"{path} is no run folder: for a file of weights give its layout ({', '.join(LAYOUTS)}) and the task "
                "it was trained on, such as task=ModularArithmetic(p=113)"
            )
        config, params = read(path, layout, as_task(task), **given)
        return cls.of(config, params, task, step=None if step == "last" else step, name=Path(path).stem)

    @cached_property
    @ordinary_torch()
    def model(self) -> "HookedTransformer | HookedMLP":
        """The model with its hooks, on CPU, in eval mode."""
        return hooked_model(self.config, self.params)

    def with_params(self, params: Mapping[str, Float[Tensor, "..."]], name: str | None = None) -> "Subject":
        """The same task and architecture with other weights."""
        return Subject.of(self.config, params, self.task, step=self.step, name=name or self.name, run=self.run)

    @ordinary_torch()
    def randomized(self, seed: int) -> "Subject":
        """The control: every weight matrix replaced by Gaussian entries of its standard deviation, all else kept."""
        return self.with_params(random_weights(self.params, seed), name=f"{self.name}, random weights")

    def logits(
        self,
        inputs: Int[Tensor, "example pos"] | Float[Tensor, "example *pos d_input"],
        edits: Mapping[str, Edit] | None = None,
    ) -> Float[Tensor, "example *answer d_vocab_out"]:
        """Logits at the answer position, or at each of several.

        ``edits`` replaces activations, by hook name, on all examples at once.
        """
        return self.activations(inputs, (), edits)[0]

    @ordinary_torch()
    @torch.no_grad()
    def activations(
        self,
        inputs: Int[Tensor, "example pos"] | Float[Tensor, "example *pos d_input"],
        names: Sequence[str],
        edits: Mapping[str, Edit] | None = None,
    ) -> tuple[Float[Tensor, "example *answer d_vocab_out"], dict[str, Float[Tensor, "example ..."]]]:
        """Logits at the answer position, and the activations with these hook names, [example, pos, …].

        Raises:
            UserError: the inputs have the wrong length; a name that the model has no activation of.
        """
        if inputs.shape[1] != self.task.n_ctx:
            raise UserError(f"expected inputs of {self.task.n_ctx} tokens, got {inputs.shape[1]}")
        edits = edits or {}
        unseen = {*names, *edits}
        kept: dict[str, list[Tensor]] = {name: [] for name in names}

        def tap(name: str, value: Tensor) -> Tensor:
            unseen.discard(name)
            if name in edits:
                value = edits[name](value[0]).unsqueeze(0)
            if name in kept:
                kept[name].append(value[0])
            return value

        # an edit may depend on which examples it is shown: it sees all of them at once
        size = max(len(inputs), 1) if edits else _CHUNK
        see = partial(self.forward, tap=tap if unseen else untapped)
        logits = in_chunks(see, inputs, size=size)
        if unseen:
            raise UserError(f"expected names of activations, the model has no {', '.join(sorted(unseen))}")
        return logits, {name: torch.cat(parts) for name, parts in kept.items()}

    def forward(
        self,
        inputs: Int[Tensor, "example pos"] | Float[Tensor, "example *pos d_input"],
        *,
        params: Mapping[str, Float[Tensor, "..."]] | None = None,
        tap: Tap = untapped,
        prepared: Any = None,
    ) -> Float[Tensor, "example *answer d_vocab_out"]:
        """Logits of all inputs at once, at the answer position or at each of several; with gradients, where wanted.

        Args:
            inputs: what the model reads.
            params: other weights of the same architecture; ``None``: its own.
            tap: sees each activation [1, example, …], and what it returns takes its place.
            prepared: what ``model_family(config).prepare`` gave, of a shortcut that some families have.
        """
        own = self.params if params is None else params
        stack = {name: value.unsqueeze(0) for name, value in own.items()}
        at = answer_positions(self.task)
        # with nobody looking, only the answers' positions are computed
        asked = at if tap is untapped else None
        run = model_family(self.config).forward
        shown = run(stack, inputs[None], self.config, tap=tap, answer_position=asked, prepared=prepared)[0]
        if len(at) > 1:
            return shown if asked else shown[:, list(at)]
        # a perceptron answers once per input, and an edit may have left one position
        return shown[:, self.task.answer_position if shown.shape[1] > 1 else 0]

    @property
    def unembedding(self) -> tuple[Float[Tensor, "d_model d_vocab_out"], Float[Tensor, " d_vocab_out"]]:
        """W_U and b_U: a tied W_U is W_Eᵀ, a missing b_U zero."""
        n_answers = self.config.d_out
        tied = "unembed.W_U" not in self.params
        W_U = self.params["embed.W_E"].T[:, :n_answers] if tied else self.params["unembed.W_U"]
        return W_U, self.params.get("unembed.b_U", W_U.new_zeros(W_U.shape[1]))

    def readout(self, dtype: torch.dtype | None = None) -> Float[Tensor, "neuron d_vocab_out"]:
        """What each neuron of the last hidden layer adds to the logits when it is 1; W_U where there are no neurons.

        LayerNorms after them are left out.
        """
        W_U = self.unembedding[0].to(dtype or self.unembedding[0].dtype)
        if not self.config.neurons or self.config.neurons[-1].W_out == "unembed.W_U":
            return W_U
        return self.params[self.config.neurons[-1].W_out].to(W_U.dtype) @ W_U

    def answers(self, inputs: Int[Tensor, "example pos"]) -> Int[Tensor, "example *answer"]:
        """The answer with the largest logit; where one logit stands for two answers, whether it is above 0."""
        logits = self.logits(inputs)
        return (logits.squeeze(-1) > 0).long() if logits.shape[-1] == 1 else logits.argmax(-1)

    @cached_property
    @ordinary_torch()
    def performance(self) -> dict[str, float]:
        """Loss (mean cross entropy, natural log, float64) and accuracy on each evaluation set of the task, such as
        ``train_loss`` and ``test_accuracy``, and the share of answers that follow each candidate rule where they
        differ; in a regression the mean squared error alone."""
        measured: dict[str, float] = {}
        for name, examples in self.task.evaluation_sets().items():
            measured |= performance(self.logits(examples.inputs), examples.targets, examples.rules, name)
        return measured


def in_chunks(compute: Callable[..., Tensor], *inputs: Tensor, size: int = _CHUNK, dim: int = 0) -> Tensor:
    """What ``compute`` gives on some examples after the others, joined along ``dim``: so much memory as one part takes.

    Args:
        compute: takes as many tensors as there are inputs.
        inputs: tensors of equal length.
        size: examples of a part.
        dim: the axis of examples in what ``compute`` gives.
    """
    parts = zip(*(values.split(size) for values in inputs), strict=True)
    return torch.cat([compute(*part) for part in parts], dim=dim)


class Trajectory:
    """One run over its steps, as subjects in ascending order."""

    def __init__(self, subjects: Sequence[Subject]) -> None:
        self.subjects = list(subjects)

    @classmethod
    def load(cls, path: str | Path) -> "Trajectory":
        """Every snapshot of a run folder."""
        run = Run.load(path)
        run.resolve("last")
        return cls([Subject.load(run, step) for step in run.steps])

    def __len__(self) -> int:
        return len(self.subjects)

    def __iter__(self) -> Iterator[Subject]:
        return iter(self.subjects)


class Ensemble:
    """Runs that are equal but for the seed, each at its last snapshot."""

    def __init__(self, subjects: Sequence[Subject]) -> None:
        if not subjects:
            raise UserError("expected at least one run in an ensemble, got none")
        self.subjects = list(subjects)

    @classmethod
    def load(cls, path: str | Path, step: int | Literal["last"] = "last") -> "Ensemble":
        """The runs in the folders ``path/seed-…``.

        Raises:
            UserError: there are none, or they differ in more than the seed.
        """
        folders = sorted(Path(path).glob("seed-*"), key=lambda folder: (len(folder.name), folder.name))
        if not folders:
            raise UserError(f"expected folders seed-0, seed-1, … in {path}, found none")
        runs = [Run.load(folder) for folder in folders]
        first = runs[0].config.decides()
        for run in runs[1:]:
            other = run.config.decides()
            if differ := [key for key in first if key != "seed" and first[key] != other[key]]:
                raise UserError(f"expected runs equal but for the seed, {run.path} differs in {', '.join(differ)}")
        return cls([Subject.load(run, step) for run in runs])

    def __len__(self) -> int:
        return len(self.subjects)

    def __iter__(self) -> Iterator[Subject]:
        return iter(self.subjects)


def linear_maps(params: Mapping[str, Float[Tensor, "..."]]) -> dict[str, Float[Tensor, "d_in d_out"]]:
    """Every weight matrix of a model in the orientation of ``x @ W``, under its parameter's name, heads side by side.

    W_Q, W_K and W_V become [d_model, n_heads · d_head], W_O [n_heads · d_head, d_model]. Biases, LayerNorms and
    positions are no maps and left out.
    """
    maps: dict[str, Tensor] = {}
    for name, value in params.items():
        kind = name.rsplit(".", 1)[-1]
        if kind in ("W_Q", "W_K", "W_V"):
            maps[name] = value.transpose(0, 1).flatten(1)
        elif kind == "W_O":
            maps[name] = value.flatten(0, 1)
        elif kind in ("W_E", "W", "W_in", "W_out", "W_U"):
            maps[name] = value
    return maps


def weight_vector(params: Mapping[str, Float[Tensor, "..."]]) -> Float[Tensor, " weight"]:
    """All weights of a model, or of part of one, in a row and in float64."""
    return torch.cat([value.double().flatten() for value in params.values()])
