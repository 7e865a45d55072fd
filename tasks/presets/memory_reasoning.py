"""Memory and reasoning anchors. *paper*: the task of Yao et al. 2025 (arXiv 2502.04375), with the model and the
schedule of the anchor composition (it publishes neither) until fitted; γ 0.3 is large, 0.8 small."""

from tasks.families.memory_reasoning import MemoryReasoning
from tasks.models.initialization import Initialization
from tasks.presets.base import Preset
from tasks.presets.post_norm import post_norm, warm_cosine

PRESETS = {
    "tiny": Preset(
        task=MemoryReasoning(
            key_low=10,
            key_high=29,
            sequence_length=4,
            split_modulus=7,
            n_train=8_000,
            d_vocab=50,
            n_memory=3,
            n_reasoning=4,
            held_out=((4, 6), (6, 4)),
        ),
        model=post_norm(d_model=32, d_head=32, d_mlp=64, n_ctx=4),
        init=Initialization(gamma=0.5),
        training=warm_cosine(steps=2_000, batch_size=128, learning_rate=3e-3, warmup_steps=100, snapshots=(0,)),
    ),
    "paper": Preset(
        task=MemoryReasoning(),
        model=post_norm(d_model=400, n_ctx=20),
        init=Initialization(gamma=0.8),
        training=warm_cosine(
            steps=20_000,
            batch_size=2_048,
            learning_rate=2e-4,
            warmup_steps=970,
            snapshots=12,
            stop_below=1e-3,
            stop_on="train",
        ),
    ),
}
