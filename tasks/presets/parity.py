"""Sparse parity. *paper*: a cell of the sweep of Pearce et al. 2023 (the explorable "Do Machine Learning Models
Memorize or Generalize?") that groks; other cells are other hidden widths (16 to 258), weight decays (0.01 to 1) and
training sets (750 to 1,750). *explorable*: the model of its first figure, 1,200 sequences under an L1 penalty. It
publishes neither width, rate nor penalty; these are the sweep's, and the smallest of 1e-5, 3e-5, …, 1e-3 under which
seeds 100 to 102 took more than twice as long to generalise as to memorise."""

from dataclasses import replace

from tasks.families.parity import SparseParity
from tasks.models.config import MLPConfig
from tasks.models.initialization import Initialization
from tasks.presets.base import Preset
from tasks.training.config import TrainingConfig

_PERCEPTRON = MLPConfig(n_ctx=30, d_vocab=2, d_vocab_out=2, d_hidden=(64,), constant_input=True, one_logit=True)
_INIT = Initialization(scheme="gain")
_TRAINING = TrainingConfig(steps=1_000, learning_rate=3e-3, weight_decay=0.3, warmup_steps=0)

PRESETS = {
    "tiny": Preset(
        task=SparseParity(n_bits=20, k=2, n_train=400, n_test=1_000),
        model=replace(_PERCEPTRON, d_hidden=(32,)),
        init=_INIT,
        training=_TRAINING,
    ),
    "paper": Preset(
        task=SparseParity(n_train=1_000),
        model=_PERCEPTRON,
        init=_INIT,
        training=replace(_TRAINING, steps=20_000, weight_decay=0.1, beta1=0.99),
    ),
    "explorable": Preset(
        task=SparseParity(n_train=1_200),
        model=_PERCEPTRON,
        init=_INIT,
        training=replace(
            _TRAINING,
            steps=5_000,
            weight_decay=0.0,
            l1_penalty=1e-5,
            evaluate_every=50,
            snapshots=(0, *range(100, 1_000, 100), 1_200, 1_500, 2_000, 3_000),
        ),
    ),
}
