"""Initial condensation of a two-layer network, Zhou et al. 2022 (arXiv 2105.11686): 100 steps of Adam from weights of
standard deviation 0.005. tanh is trained at 1e-3; sigmoid at 8e-4, softplus at 2.5e-4."""

from tasks.families.regression import SineRegression
from tasks.models.config import MLPConfig
from tasks.models.initialization import Initialization
from tasks.presets.base import Preset
from tasks.training.config import TrainingConfig

PRESETS = {
    "paper": Preset(
        task=SineRegression(),
        model=MLPConfig(n_ctx=5, d_vocab_out=1, d_hidden=(50,), input="vector", constant_input=True, act_fn="tanh"),
        init=Initialization(gamma=0.0, gain=0.005),
        training=TrainingConfig(
            steps=100,
            weight_decay=0.0,
            beta2=0.999,
            warmup_steps=0,
            evaluate_every=10,
            snapshots=(0, 10, 20, 50),
        ),
    ),
}
