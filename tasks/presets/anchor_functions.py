"""The anchor-function benchmark, Zhang et al. 2024 (arXiv 2401.08309).

*paper*: its model, 4 layers of 4 heads (8 of 6 for intervals), in the usual initialisation (normal here, uniform there,
of equal variance), for 4,000 epochs, or as many steps as 4,000 epochs of 4,000 sequences have. *tiny*: fewer keys, two
layers of one head; it solves every task but intervals, whose masked keys it gets wrong.
"""

from typing import Any

from tasks.families.intervals import AnchorIntervals
from tasks.families.questions import ReadingComprehension, WorkingMemory
from tasks.families.recall import Classification, Identity, Recitation
from tasks.models.initialization import Initialization
from tasks.presets.base import Preset
from tasks.presets.post_norm import post_norm, warm_cosine

_FEW_KEYS: dict[str, Any] = {
    "key_low": 10,
    "key_high": 29,
    "split_modulus": 7,
    "d_vocab": 40,
    "sequence_length": 6,
}


def _tiny(task: Any, steps: int) -> Preset:
    return Preset(
        task=task,
        model=post_norm(d_model=32, d_head=32, d_mlp=64, n_ctx=task.n_ctx),
        init=Initialization(gamma=0.5),
        training=warm_cosine(steps=steps, batch_size=64, learning_rate=3e-3, warmup_steps=100, snapshots=(0,)),
    )


def _paper(task: Any, n_layers: int = 4, n_heads: int = 4, learning_rate: float = 2e-4) -> Preset:
    steps = 4_000 * min(task.n_train, 4_000) // 100
    return Preset(
        task=task,
        model=post_norm(
            d_model=400,
            n_layers=n_layers,
            n_heads=n_heads,
            d_head=64,
            n_ctx=task.n_ctx,
            unembedding_bias=False,
        ),
        # torch's own: ±1/√fan_in for matrices, N(0, 1) for embeddings
        init=Initialization(scheme="gain", gain=3**-0.5, embedding=1_200**0.5),
        training=warm_cosine(
            steps=steps,
            batch_size=100,
            learning_rate=learning_rate,
            warmup_steps=steps // 10,
            warmup_from=0.1,
            decay_to=0.1,
            snapshots=12,
        ),
    )


CLASSIFICATION = {
    "tiny": _tiny(Classification(**_FEW_KEYS, n_train=2_000), steps=400),
    "paper": _paper(Classification()),
}
IDENTITY = {
    "tiny": _tiny(Identity(**_FEW_KEYS), steps=400),
    "paper": _paper(Identity()),
}
RECITATION = {
    "tiny": _tiny(Recitation(**_FEW_KEYS), steps=1_000),
    "paper": _paper(Recitation()),
}
INTERVALS = {
    "tiny": _tiny(
        AnchorIntervals(
            **_FEW_KEYS,
            n_train=4_000,
            offsets=(1, 2, 3, 4),
            masked=((10, 14), (15, 19), (20, 24), (25, 29)),
        ),
        steps=1_000,
    ),
    "paper": _paper(AnchorIntervals(), n_layers=8, n_heads=6, learning_rate=1e-4),
}
READING = {
    "tiny": _tiny(ReadingComprehension(**_FEW_KEYS, n_train=4_000, n_anchors=2), steps=1_000),
    "paper": _paper(ReadingComprehension()),
}
WORKING_MEMORY = {
    "tiny": _tiny(
        WorkingMemory(**_FEW_KEYS | {"sequence_length": 10, "split_modulus": 10}, n_train=8_000),
        steps=1_500,
    ),
    "paper": _paper(WorkingMemory()),
}
