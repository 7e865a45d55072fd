"""Modular addition.

*paper*: the mainline run of Nanda et al. 2023 (arXiv 2301.05217). *fast*: its data and its model at three times its
learning rate, until the test loss is below 1e-5. *tiny*: the setting under which most of seeds 100 to 107 end in a
verdict, seven, of those tried.

*explorable* and *circle*: addition mod 67 of unordered pairs by one ReLU layer between tied embeddings, Pearce et al.
2023. *explorable* has 24 neurons, and all weights are trained. *circle* has 5 neurons on the circle of frequency 1,
and 20 trained weights; of seeds 0 to 7, 3, 4, 5 and 7 solve it, the others stop at 13 to 17 % with their angles
unevenly spread.

The published loss is the mean over answers too, cross entropy/67. AdamW divides a common factor of all gradients out,
up to its ε: with 67 times theirs the steps are the same. Their linear layers are drawn from a normal distribution cut
at two standard deviations, which leaves 0.88 of one; here they are Gaussian of that width.
"""

from dataclasses import replace

from tasks.families.modular import ModularArithmetic
from tasks.models.config import MLPConfig, TransformerConfig
from tasks.models.initialization import Initialization
from tasks.presets.base import Preset
from tasks.training.config import TrainingConfig

MAINLINE = TransformerConfig(
    n_layers=1, d_model=128, n_heads=4, d_head=32, d_mlp=512, d_vocab=114, n_ctx=3, mlp_bias=True
)
_PUBLISHED = ModularArithmetic(p=113, train_fraction=0.3, split="python_shuffle")
_USUAL = Initialization(scheme="progress_measures")

_TIED = MLPConfig(
    n_ctx=2, d_vocab=67, d_vocab_out=67, d_hidden=(24,), input="embedding", d_embed=500, tied_unembedding=True
)
_UNORDERED = ModularArithmetic(p=67, form="pair", unordered=True, train_fraction=0.4)
_PERCEPTRON = TrainingConfig(
    steps=50_000,
    eps=67e-8,
    warmup_steps=0,
    dtype="float64",
    snapshots=(0, 200, 500, 1_000, 2_000, 4_000, 7_000, *range(10_000, 50_000, 5_000)),
)

PRESETS = {
    "tiny": Preset(
        task=ModularArithmetic(p=59, train_fraction=0.6),
        model=replace(MAINLINE, d_model=64, d_head=16, d_mlp=256),
        init=_USUAL,
        training=TrainingConfig(steps=1_500, learning_rate=1e-2, decay="cosine", decay_to=0.0, snapshots=(0, 200)),
    ),
    "default": Preset(
        task=ModularArithmetic(p=59, train_fraction=0.4),
        model=replace(MAINLINE, d_mlp=256),
        init=_USUAL,
        training=TrainingConfig(steps=3_000, learning_rate=3e-3),
    ),
    "fast": Preset(
        task=_PUBLISHED,
        model=MAINLINE,
        init=_USUAL,
        training=TrainingConfig(steps=6_000, learning_rate=3e-3, evaluate_every=50, stop_below=1e-5),
    ),
    "paper": Preset(
        task=_PUBLISHED,
        model=MAINLINE,
        init=_USUAL,
        training=TrainingConfig(
            steps=40_000, snapshots=(200, 1_000, 2_000, 4_000, 6_000, 8_000, 10_000, 12_000, 16_000)
        ),
    ),
    "explorable": Preset(
        task=_UNORDERED,
        model=_TIED,
        # the table's fan-in is 67, its rows; ours is 500
        init=Initialization(scheme="gain", mlp=0.88, embedding=(2 / 67) ** 0.5 * 500**0.5),
        training=_PERCEPTRON,
    ),
    "circle": Preset(
        task=replace(_UNORDERED, train_fraction=0.3),
        model=replace(_TIED, d_hidden=(5,), d_embed=2),
        init=Initialization(scheme="gain", mlp=0.88, circle=(1,)),
        training=replace(_PERCEPTRON, steps=15_000, learning_rate=1e-2, weight_decay=1e-3, frozen=("embed.W_E",)),
    ),
}
