"""Sweeps that need no file of their own: ``python -m tasks sweep NAME``.

Each phase diagram has its paper's form, which wants a cluster or a GPU, and a form *-small* for two cores. What the
papers leave open is chosen here: their grids are published as figures only.
"""

from tasks.sweep.grid import SweepSpec

_BOTH_UNSEEN = {"task.relabelled": (), "task.held_out": ((3, 4), (4, 3))}
_DECAYS = (0.01, 0.03, 0.1, 0.3)
_MOD_23 = {
    "task.p": 23,
    "model.d_model": 32,
    "model.n_heads": 2,
    "model.d_mlp": 64,
    "training.decay": "constant",
}
"""Addition small enough for maps of many models: the preset *tiny* with a smaller table and network."""
_SLOWLY = {"training.steps": 6_000, "training.learning_rate": 1e-3, "training.evaluate_every": 50}
_FORESEEN = {"training.snapshots": (0, 100, 200, 400, 700, 1_000, 1_500, 2_500, 4_000, 6_500, 10_000, 15_000)}
"""Snapshots to foresee generalisation from, each at an evaluation."""


def _as_drawn(*widths: int) -> tuple[float, ...]:
    """Gain of the embedding of each width that gives the standard deviation of the preset *explorable*."""
    return tuple((2 / 67 * width) ** 0.5 for width in widths)


_TYING = {
    "model.input": ("embedding", "embedding", "concatenated"),
    "model.tied_unembedding": (True, False, False),
    "init.unembedding": (None, 0.88, 0.88),
}
"""Everything tied; the answers read from a matrix of their own; a table per number, too."""
_WIDTHS = (32, 64, 128, 256, 512)

READY: dict[str, SweepSpec] = {
    "anchor-gamma-depth": SweepSpec(
        task="anchor",
        preset="paper",
        axes={
            "init.gamma": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
            "model.n_layers": (2, 3, 4, 5, 6),
            "training.learning_rate": tuple(round(1e-4 + 2.5e-5 * i, 6) for i in range(9)),
        },
        seeds=(0, 1, 2),
    ),
    "anchor-gamma-depth-small": SweepSpec(
        task="anchor",
        preset="default",
        base={"training.steps": 5_000},
        axes={
            "init.gamma": (0.5, 0.8, 1.2, 1.6, 2.1),
            "model.n_layers": (2, 3),
            "training.learning_rate": (1e-3, 2e-3),
        },
        seeds=(0, 1, 2),
        stack_size=5,
    ),
    "anchor-gamma-decay": SweepSpec(
        task="anchor",
        preset="paper",
        base=_BOTH_UNSEEN,
        axes={
            "init.gamma": (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8),
            "training.weight_decay": (0.0, 0.01, 0.1, 1.0),
        },
        seeds=(1, 2, 3),
    ),
    "anchor-gamma-decay-small": SweepSpec(
        task="anchor",
        preset="default",
        base={"training.steps": 5_000},
        axes={"init.gamma": (0.5, 0.8, 1.2, 2.1), "training.weight_decay": (0.01, 0.1, 0.3)},
        seeds=(0, 1, 2),
        stack_size=9,
    ),
    "anchor-gamma-decay-unseen-small": SweepSpec(
        task="anchor",
        preset="default",
        base={**_BOTH_UNSEEN, "training.steps": 5_000},
        axes={"init.gamma": (0.35, 0.5, 0.8, 1.2), "training.weight_decay": (0.01, 0.1, 0.3, 1.0)},
        seeds=(0, 1, 2),
        stack_size=9,
    ),
    "anchor-rate-decay": SweepSpec(
        task="anchor",
        preset="paper",
        base={**_BOTH_UNSEEN, "model.n_layers": 3},
        axes={
            "training.learning_rate": (5e-5, 1e-4, 2e-4, 4e-4, 6e-4),
            "training.weight_decay": (0.003, 0.01, 0.03, 0.1, 0.3),
        },
        seeds=tuple(range(9)),
    ),
    "anchor-rate-decay-small": SweepSpec(
        task="anchor",
        preset="default",
        base={"training.steps": 5_000, "init.gamma": 1.2},
        axes={"training.learning_rate": (5e-4, 1e-3, 2e-3, 4e-3), "training.weight_decay": _DECAYS},
        seeds=(0, 1, 2),
    ),
    "anchor-rate-decay-unseen-small": SweepSpec(
        task="anchor",
        preset="default",
        base={**_BOTH_UNSEEN, "training.steps": 5_000, "init.gamma": 0.5},
        axes={"training.learning_rate": (1e-3, 2e-3, 4e-3), "training.weight_decay": (0.01, 0.1, 0.3, 1.0)},
        seeds=(0, 1, 2),
        stack_size=6,
    ),
    "modular-decay-fraction": SweepSpec(
        task="modular",
        preset="paper",
        base={"training.steps": 100_000},
        axes={
            "task.train_fraction": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
            "training.weight_decay": (0.0, 0.1, 0.3, 1.0, 3.0, 5.0),
        },
        seeds=(0, 1, 2),
    ),
    "modular-decay-fraction-small": SweepSpec(
        task="modular",
        preset="tiny",
        base={**_MOD_23, **_SLOWLY},
        axes={
            "task.train_fraction": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
            "training.weight_decay": (0.0, 0.1, 0.3, 1.0, 3.0, 10.0),
        },
        seeds=(0, 1, 2),
        stack_size=15,
    ),
    "modular-scale-decay": SweepSpec(
        task="modular",
        preset="paper",
        base={"training.steps": 100_000},
        axes={
            "init.gain": (0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
            "training.weight_decay": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
        },
        seeds=(0, 1, 2),
    ),
    "modular-scale-decay-small": SweepSpec(
        task="modular",
        preset="tiny",
        base={**_MOD_23, **_SLOWLY, "task.train_fraction": 0.7},
        axes={"init.gain": (0.25, 0.5, 1.0, 2.0, 4.0), "training.weight_decay": (0.1, 0.3, 1.0, 3.0)},
        seeds=(0, 1, 2),
        stack_size=15,
    ),
    "parity": SweepSpec(
        task="parity",
        preset="paper",
        base=_FORESEEN,
        axes={
            "training.weight_decay": (0.01, 0.03, 0.1, 0.3, 1.0),
            "model.d_hidden": ((16,), (32,), (64,), (128,), (258,)),
            "task.n_train": (750, 1_000, 1_250, 1_500, 1_750),
        },
        seeds=tuple(range(9)),
        stack_size=45,
    ),
    "parity-small": SweepSpec(
        task="parity",
        preset="paper",
        base=_FORESEEN,
        axes={
            "training.weight_decay": (0.01, 0.03, 0.1, 0.3, 1.0),
            "model.d_hidden": ((16,), (32,), (64,)),
            "task.n_train": (750, 1_000, 1_500),
        },
        seeds=(0, 1, 2),
        stack_size=15,
    ),
    "reverse-grokking": SweepSpec(
        task="modular",
        preset="explorable",
        base={
            "model.d_embed": 5,
            "model.d_hidden": (10,),
            "init.embedding": _as_drawn(5)[0],
            "training.weight_decay": 0.0,
            "training.steps": 20_000,
        },
        seeds=tuple(range(9)),
        stack_size=9,
    ),
    "memorise-between": SweepSpec(
        task="modular",
        preset="explorable",
        base={
            "task.train_fraction": 0.7,
            "model.d_embed": 8,
            "model.d_hidden": (16,),
            "init.embedding": _as_drawn(8)[0],
            "training.weight_decay": 0.05,
            "training.steps": 80_000,
            "training.snapshots": (0, 500, 1_000, 2_000, 4_000, 7_000, *range(10_000, 80_000, 5_000)),
        },
        seeds=tuple(range(9)),
        stack_size=9,
    ),
    "perceptron-architecture": SweepSpec(
        task="modular",
        preset="explorable",
        axes={
            "training.weight_decay": (0.01, 0.03, 0.1, 0.3, 1.0),
            "training.learning_rate": (1e-4, 1e-3, 1e-2),
        },
        zipped=({"model.d_embed": _WIDTHS, "init.embedding": _as_drawn(*_WIDTHS)}, _TYING),
        seeds=tuple(range(9)),
        stack_size=45,
    ),
    "perceptron-architecture-l1": SweepSpec(
        task="modular",
        preset="explorable",
        base={"training.weight_decay": 0.0},
        axes={
            "training.l1_penalty": tuple(67 * 10.0**-power for power in (11, 10, 9, 8, 7)),
            "training.learning_rate": (1e-4, 1e-3, 1e-2),
        },
        zipped=({"model.d_embed": _WIDTHS, "init.embedding": _as_drawn(*_WIDTHS)}, _TYING),
        seeds=tuple(range(9)),
        stack_size=45,
    ),
    "perceptron-collapsed": SweepSpec(
        task="modular",
        preset="explorable",
        base={
            "model.input": "counts",
            "model.d_embed": None,
            "model.tied_unembedding": False,
            "init.unembedding": 0.88,
        },
        axes={
            "training.weight_decay": (0.01, 0.03, 0.1, 0.3, 1.0),
            "training.learning_rate": (1e-4, 1e-3, 1e-2),
        },
        seeds=tuple(range(9)),
        stack_size=45,
    ),
    "perceptron-architecture-small": SweepSpec(
        task="modular",
        preset="explorable",
        base={"training.steps": 10_000, "training.learning_rate": 1e-2, "training.dtype": "float32"},
        axes={"training.weight_decay": (0.1, 1.0)},
        zipped=({"model.d_embed": (32, 256), "init.embedding": _as_drawn(32, 256)}, _TYING),
        seeds=(0, 1, 2),
        stack_size=6,
    ),
    "data-and-decay": SweepSpec(
        task="modular",
        preset="tiny",
        base={**_MOD_23, "training.steps": 1_500, "training.learning_rate": 3e-3},
        axes={"task.train_fraction": (0.3, 0.5, 0.7, 0.9), "training.weight_decay": (0.0, 1.0)},
        seeds=(0, 1),
    ),
}
"""Name → sweep.

* *anchor-gamma-depth*: Zhang et al. 2024 (arXiv 2405.05409), figure 2; learning rates are swept inside, and
  ``interp.sweeps.phases.best_over`` takes the best of them for each rule.
* *anchor-gamma-decay*: Zhang et al. 2025 (arXiv 2501.08537), its grid on the two-layer model; neither (3,4) nor (4,3)
  is trained, as in the small form *-unseen-small*. The other small form keeps the taught exception, so that it has both
  solutions.
* *anchor-rate-decay*: Zhang et al. 2024, figure 14. Again *-unseen-small* asks what the paper asks, at a scale of
  initial weights where other decays compose more or less; the other small form keeps the exception.
* *modular-decay-fraction*: how much data and decay it takes to generalise, with the phases of Liu et al. 2022 (arXiv
  2205.10343). *modular-scale-decay*: init scale α against decay, Liu et al. 2022 (Omnigrok, arXiv 2210.01117).
* *parity*: the 1,125 models of the explorable by Pearce et al. 2023; their run folders take 290 MB. The small form is
  the part of its grid where all four classes lie side by side.
* *reverse-grokking*, *memorise-between*, *perceptron-…*: its further models of addition mod 67: one that unlearns,
  one that generalises, memorises and generalises, and what is shared: one table that is read and written, one that
  is only read, a table for each of the two numbers, or no table at all (*collapsed*), under L2 or L1. Its L1
  coefficients are for cross entropy/67; ours are 67 times as large.
* *data-and-decay*: sixteen models, to try the command."""
