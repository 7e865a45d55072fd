"""What is timed: the same model on the same data, by a plain loop over other people's modules and by this project."""

import tempfile
import weakref
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.base import Task
from tasks.families.anchor import AnchorComposition
from tasks.families.modular import ModularArithmetic
from tasks.families.parity import SparseParity
from tasks.models import HookedTransformer
from tasks.models.config import MLPConfig, TransformerConfig
from tasks.models.initialization import Initialization
from tasks.presets import preset
from tasks.training.config import TrainingConfig
from tasks.training.objective import cross_entropy
from tasks.training.run import Run, RunConfig, library_versions
from tasks.training.trainer import Stack


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A task, a model and how it is trained; ``stacks`` are the numbers of models that are timed together."""

    name: str
    task: Task
    model: TransformerConfig | MLPConfig
    training: TrainingConfig
    stacks: tuple[int, ...] = (1, 4, 16, 64)
    init: Initialization = field(default_factory=Initialization)
    compiled: tuple[int, ...] = ()
    """Those of the stacks that are also timed with ``torch.compile``, on one thread, where a compiler is found."""
    weight_decays: tuple[float, ...] = ()
    """Of the models of a stack, in turn; by default all have that of ``training``."""
    fused: bool = False
    """Whether the loop's AdamW is torch's fused one; by default it is what ``torch.optim.AdamW(params)`` gives."""


def workloads() -> list[Workload]:
    """The benchmark's workloads, smallest step last."""
    modular = preset("modular", "paper")
    anchor = preset("anchor", "paper")
    # transformer-lens has no post-LN, so both sides train the pre-LN twin
    wide = replace(anchor.model, normalization="pre", n_ctx=9)
    tiny = TransformerConfig(
        n_layers=1, d_model=32, n_heads=2, d_head=16, d_mlp=128, n_ctx=3, d_vocab=60, d_vocab_out=59, mlp_bias=True
    )
    plain = TrainingConfig(learning_rate=1e-3, weight_decay=0.01)
    few = AnchorComposition(sequences_per_pair=2_000)
    return [
        Workload(
            name="modular addition, p = 113, full batch",
            task=modular.task,
            model=modular.model,
            training=plain,
            compiled=(1,),
        ),
        Workload(
            name="anchors, d_model 400, batch 200",
            task=few,
            model=wide,
            training=replace(plain, batch_size=200),
            stacks=(1, 4, 16),
        ),
        Workload(
            name="anchors, d_model 400, batch 2,048",
            task=few,
            model=wide,
            training=replace(plain, batch_size=2_048),
            stacks=(1, 4),
            compiled=(1,),
        ),
        Workload(
            name="tiny transformer, d_model 32, batch 32",
            task=ModularArithmetic(p=59),
            model=tiny,
            training=replace(plain, batch_size=32),
            compiled=(64,),
        ),
        *(parity(width, n_train) for width, n_train in ((16, 1_000), (128, 1_000), (258, 1_750))),
    ]


def parity(width: int, n_train: int) -> Workload:
    """One shape of the sweep of 1,125 parity MLPs; 45 of them differ in seed and weight decay only."""
    return Workload(
        name=f"parity MLP, hidden {width}, batch {n_train:,}",
        task=SparseParity(n_train=n_train),
        model=MLPConfig(n_ctx=30, d_vocab=2, d_vocab_out=2, d_hidden=(width,), constant_input=True, one_logit=True),
        training=TrainingConfig(learning_rate=3e-3, weight_decay=0.01),
        weight_decays=(0.01, 0.03, 0.1, 0.3, 1.0),
        init=Initialization(scheme="gain"),
        stacks=(1, 5, 15, 45),
        compiled=(45,),
        fused=True,
    )


def parity_sweep() -> list[Workload]:
    """All shapes of the sweep, each as often as any other."""
    return [parity(width, n_train) for width in (16, 32, 64, 128, 258) for n_train in (750, 1_000, 1_250, 1_500, 1_750)]


class PlainMLP(nn.Module):
    """The parity MLP as anyone writes it, its weights under our names; the bits are floats before training begins."""

    def __init__(self, params: dict[str, Tensor]) -> None:
        super().__init__()
        self.first = nn.Linear(*params["layers.0.W_in"].shape, bias=False)
        self.last = nn.Linear(*params["unembed.W_U"].shape, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(params["layers.0.W_in"].T)
            self.last.weight.copy_(params["unembed.W_U"].T)
        self.read: dict[int, Tensor] = {}

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.data_ptr() not in self.read:
            self.read[inputs.data_ptr()] = F.pad(inputs.float(), (0, 1), value=1.0)
        return self.last(F.relu(self.first(self.read[inputs.data_ptr()])))

    def tl_parameters(self) -> dict[str, Tensor]:
        return {"layers.0.W_in": self.first.weight.T, "unembed.W_U": self.last.weight.T}


class Loop:
    """The usual way: a module, ``torch.optim.AdamW`` and the loss at the answer position, one model at a time."""

    def __init__(self, workload: Workload, module: nn.Module, batches: Callable[[int], tuple[Tensor, Tensor]]) -> None:
        self.module = module.train()
        self.answer_position = workload.task.answer_position
        self.batches = batches
        training = workload.training
        self.optimizer = torch.optim.AdamW(
            module.parameters(),
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            betas=(training.beta1, training.beta2),
            fused=workload.fused or None,
        )
        self.n = 0

    def loss(self) -> Tensor:
        """The loss on the batch of the next step."""
        inputs, targets = self.batches(self.n)
        logits = self.module(inputs)
        return cross_entropy(logits if logits.ndim == 2 else logits[:, self.answer_position], targets).mean()

    def step(self) -> None:
        """One update."""
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()
        self.n += 1


def stack(workload: Workload, n_models: int, device: str = "cpu", *, compiled: bool = False) -> Stack:
    """This project's trainer with several models of the workload, before its first step."""
    folder = Path(tempfile.mkdtemp(prefix="rulelens-bench-"))
    decays = workload.weight_decays or (workload.training.weight_decay,)
    runs = [
        Run.create(
            folder / f"seed-{seed}",
            RunConfig(
                task=workload.task,
                model=workload.model,
                init=workload.init,
                training=replace(workload.training, weight_decay=decays[seed % len(decays)]),
                seed=seed,
                versions=library_versions(),
            ),
        )
        for seed in range(n_models)
    ]
    together = Stack(runs, folder / "resume.safetensors", device, compiled=compiled)
    weakref.finalize(together, rmtree, folder, ignore_errors=True)
    return together


def same_start(workload: Workload, *, compiled: bool = False) -> tuple[Loop, Stack, float, float]:
    """Both sides with the same weights and batches, and how far apart they are there.

    Returns:
        the loop; a stack of one; the relative difference of their losses; the largest difference of a gradient, as a
        share of that gradient's norm (biases that only transformer-lens has are left out).
    """
    ours = stack(workload, 1, compiled=compiled)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        kept, ours.step = ours.step, step
        inputs, targets = ours.batch()
        ours.step = kept
        return inputs[0], targets[0]

    params = ours.params.member(0)
    if isinstance(workload.model, MLPConfig):
        module: nn.Module = PlainMLP(params)
    else:
        module = HookedTransformer(workload.model, params).to_transformer_lens()
    loop = Loop(workload, module, batches)
    theirs, loss = loop.loss(), ours.loss()
    theirs.backward()
    ours.params.differentiate(loss)
    gradients = _under_our_names(loop.module)
    shared = set(ours.params.tensors) & set(gradients) - {"unembed.b_U"}  # which is a buffer in transformer-lens 4
    apart = [
        float((ours.params.gradient(name)[0] - gradients[name]).norm() / gradients[name].norm()) for name in shared
    ]
    return loop, ours, abs(float(loss.detach()) / float(theirs.detach()) - 1), max(apart)


def _under_our_names(module: nn.Module) -> dict[str, Tensor]:
    """The module's gradients under transformer-lens's names: a bridge renames its weights, so they take their place."""
    copy = deepcopy(module)
    with torch.no_grad():
        for parameter, original in zip(copy.parameters(), module.parameters(), strict=True):
            parameter.copy_(torch.zeros_like(original) if original.grad is None else original.grad)
    return {name: value.detach() for name, value in getattr(copy, "tl_parameters", copy.state_dict)().items()}
