"""A task, an analysis and a verdict that rulelens does not know of: which of two numbers is larger?"""

from dataclasses import dataclass

import torch

from interp.registry import Analysis
from interp.result import Result
from interp.verdict import Verdict
from tasks.models.config import MLPConfig
from tasks.models.initialization import Initialization
from tasks.presets import Preset
from tasks.registry import Family
from tasks.table import PairTable
from tasks.training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Maximum(PairTable):
    """The larger of two numbers below n."""

    family = "maximum"
    n: int = 12

    n_elements = property(lambda self: self.n)

    def answers(self, pairs):
        """The larger number of each pair."""
        return pairs.max(1).values


MODEL = MLPConfig(n_ctx=2, d_vocab=12, d_vocab_out=12, d_hidden=(32,), input="one_hot")
TRAINING = TrainingConfig(steps=200, learning_rate=1e-2, snapshots=2)
TASK = Maximum(form="pair", train_fraction=0.8)
FAMILY = Family(
    task=Maximum, presets={"tiny": Preset(task=TASK, model=MODEL, init=Initialization(), training=TRAINING)}
)
ORDINAL = Analysis("stranger", tasks=("maximum",))


@dataclass(frozen=True, kw_only=True, eq=False)
class OrdinalResult(Result):
    """Correlation of an answer's logit with its distance from the right one, and the same of random weights."""

    correlation: float
    control_correlation: float


def analyze(subject) -> OrdinalResult:
    """The correlation, and its control."""
    return OrdinalResult(correlation=_correlation(subject), control_correlation=_correlation(subject.randomized(0)))


def _correlation(subject) -> float:
    inputs, right = subject.task.all_inputs(), subject.task.all_targets()
    distance = (torch.arange(subject.task.n) - right[:, None]).abs()
    both = torch.stack([distance.double().flatten(), subject.logits(inputs).double().flatten()])
    return float(torch.corrcoef(both)[0, 1])


def verdict(subject, results) -> Verdict:
    """Ordinal where logits fall with distance."""
    found = results["ordinal"].correlation
    solution = "ordinal" if found < -0.3 else "not ordinal"
    return Verdict(solution=solution, sentence=f"{solution}: correlation {found:.2f}.", rule="correlation < −0.3")
