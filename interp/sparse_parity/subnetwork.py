"""How few neurons of one hidden layer do the work of all: the smallest subnetwork of largest input norms.

Merrill et al. 2023 (arXiv 2303.11873): where a network of one hidden layer generalises, a few neurons of large input
weights answer as all do. The rest is dropped, not retrained. Control: as many neurons drawn at random.

Misleads where neurons of one kind are larger than those of another: the order by norm then takes all of the first kind
before it comes to the second, and says many where a few of each would do. Random neurons then do as well.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.result import Result
from interp.statistics import Interval, share
from interp.subject import Subject
from tasks.base import generator

TOLERANCE = 0.01
"""Accuracy that a subnetwork may lack."""
N_DRAWS = 20


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What the neurons of one hidden layer add to a margin, the logit of answer 1 less that of answer 0.

    Attributes:
        contributions: activation times output weight. ``bias``: what is added whatever neurons there are.
        norms: of the neurons' input weights.
    """

    contributions: Float[Tensor, "example neuron"]
    norms: Float[Tensor, " neuron"]
    bias: float = 0.0

    def top_answers(self) -> Int[Tensor, "example size"]:
        """Column m − 1: answers of the m neurons of largest norm alone. Neurons of equal norm keep their order."""
        order = self.norms.argsort(descending=True, stable=True)
        return (self.contributions[:, order].cumsum(1) + self.bias > 0).long()

    def answers_of(self, neurons: Int[Tensor, " size"]) -> Int[Tensor, " example"]:
        """Answers of these neurons alone."""
        return (self.contributions[:, neurons].sum(1) + self.bias > 0).long()


def hidden_layer(subject: Subject, inputs: Int[Tensor, "example bit"]) -> Layer:
    """The hidden layer on these inputs. Norms are of the weights on bits: that on the constant is a bias."""
    W_U, b_U = subject.params["unembed.W_U"].double(), subject.params.get("unembed.b_U")
    logits = torch.cat([W_U, W_U.new_zeros(1, W_U.shape[1]) if b_U is None else b_U.double().unsqueeze(0)])
    margin = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
    _, seen = subject.activations(inputs, ["layers.0.hook_post"])
    return Layer(
        contributions=seen["layers.0.hook_post"].double() * margin[:-1],
        norms=subject.params["layers.0.W_in"][: inputs.shape[1]].double().norm(dim=0),
        bias=float(margin[-1]),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Subnetwork(Result):
    """The smallest subnetwork.

    Attributes:
        neurons, size: of the network, and of the subnetwork.
        accuracy: of the subnetwork on the data on which it was found; ``faithfulness``: share of other inputs on which
            it answers as the network does, at least one half of them by chance where half of all answers are 1.
        random_accuracy, random_faithfulness: the same of as many neurons at random, means over draws.
        top_accuracy, top_faithfulness: of the top 1, 2, … neurons.
    """

    neurons: int
    size: int
    accuracy: float
    faithfulness: Interval
    random_accuracy: float
    random_faithfulness: float
    top_accuracy: Float[Tensor, " size"]
    top_faithfulness: Float[Tensor, " size"]


def smallest_size(accuracy: Float[Tensor, " size"], tolerance: float = TOLERANCE) -> int:
    """The smallest m at which the top m neurons are as accurate as all, up to the tolerance.

    ``accuracy`` is that of the top 1, 2, … neurons. Misleads on a network that guesses: one neuron guesses as well.

    >>> smallest_size(torch.tensor([0.5, 0.75, 0.995, 1.0]))
    3
    """
    return int((accuracy >= accuracy[-1] - tolerance).nonzero()[0]) + 1


def smallest_subnetwork(
    seen: Layer,
    targets: Int[Tensor, " seen"],
    unseen: Layer,
    answers: Int[Tensor, " unseen"],
    *,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Subnetwork:
    """The smallest set of neurons of largest input norm that is as accurate as the network, and how faithful it is.

    Args:
        seen, targets: on what accuracy is measured, best the training set: there a network that memorises is accurate,
            too, and needs many neurons.
        unseen, answers: other inputs, and the network's answers to them.
        tolerance: see ``smallest_size``. ``seed``: of the random neurons.
    """
    right = (seen.top_answers() == targets.unsqueeze(1)).double().mean(0)
    agrees = unseen.top_answers() == answers.unsqueeze(1)
    n, size = len(seen.norms), smallest_size(right, tolerance)
    draws = [generator(seed, "random neurons", draw).permutation(n)[:size] for draw in range(N_DRAWS)]
    others = [torch.from_numpy(draw) for draw in draws]
    return Subnetwork(
        neurons=n,
        size=size,
        accuracy=float(right[size - 1]),
        faithfulness=share(agrees[:, size - 1]),
        random_accuracy=_agreement([seen.answers_of(some) for some in others], targets),
        random_faithfulness=_agreement([unseen.answers_of(some) for some in others], answers),
        top_accuracy=right,
        top_faithfulness=agrees.double().mean(0),
    )


def _agreement(given: list[Tensor], expected: Tensor) -> float:
    return float((torch.stack(given) == expected).double().mean())
