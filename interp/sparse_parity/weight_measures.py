"""Measures of the weights of a sparse parity's perceptron, from which it can be told whether it will generalise.

* ``weights.…``: read off the weights, the subnetwork also off the training set. They know neither the rule nor any
  test example.
* ``rule.…``: read off the weights by one who knows which bits are relevant.

``interp.sweeps.snapshots`` makes a table of them. The Fourier–Walsh coefficient of the relevant bits is left out: on
fresh inputs it is the test accuracy under another name, and on the training set the train accuracy.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

from jaxtyping import Float
from torch import Tensor

from interp.sparse_parity.parity import relevant_share
from interp.sparse_parity.subnetwork import hidden_layer, smallest_size
from interp.spread import gini
from interp.subject import Subject
from interp.weights.condensation import condensation
from interp.weights.rank import participation_ratio, singular_values, stable_rank
from tasks.base import Examples, Task, UserError
from tasks.families.parity import SparseParity
from tasks.training.run import Run

_LEAST = 1e-12  # of a norm, so that a weight that decayed to nothing has a logarithm


def weight_measures(
    W_in: Float[Tensor, "bit neuron"], w_out: Float[Tensor, " neuron"], constant: Float[Tensor, " neuron"] | None = None
) -> dict[str, float]:
    """How large, how unequal and how alike the weights of one hidden layer are, without knowing the rule.

    Norms are log10 of Frobenius norms; ``bit_gini`` and ``largest_bit`` are of the bits' squared weights,
    ``neuron_gini`` of ‖w_in‖·|w_out|; the others are those of ``interp.weights.rank`` and
    ``interp.weights.condensation``. A network of zeros has no shares: NaN.

    Args:
        W_in: input weights. ``constant``: those of a constant input, if there is one.
        w_out: what each neuron adds to the logit of answer 1 less that of answer 0.
    """
    mass, singular, alike = W_in.double().square().sum(1), singular_values(W_in), condensation(W_in)
    measures = {
        "log_input_norm": _log10(float(mass.sum().sqrt())),
        "log_output_norm": _log10(float(w_out.double().norm())),
        "bit_gini": gini(mass),
        "largest_bit": float(mass.max() / mass.sum()),
        "neuron_gini": gini(W_in.double().norm(dim=0) * w_out.double().abs()),
        "stable_rank": stable_rank(singular),
        "participation_ratio": participation_ratio(singular),
        "mean_absolute_cosine": alike.mean_absolute_cosine,
        "condensed_share": alike.condensed_share,
    }
    return measures if constant is None else measures | {"log_constant_norm": _log10(float(constant.double().norm()))}


def rule_measures(W_in: Float[Tensor, "bit neuron"], relevant: Sequence[int]) -> dict[str, float]:
    """How much of the bits' squared weights lies on the relevant ones; masses as log10.

    >>> import torch
    >>> rule_measures(torch.tensor([[3.0], [1.0]]), (0,))["relevant_share"]
    0.9
    """
    mass = W_in.double().square().sum(1)
    inside = float(mass[list(relevant)].sum())
    return {
        "relevant_share": relevant_share(W_in, relevant),
        "log_relevant_mass": _log10(inside),
        "log_distractor_mass": _log10(float(mass.sum()) - inside),
    }


def of_run(run: Run, step: int) -> dict[str, float]:
    """The measures of a run's snapshot, under ``weights.…`` and ``rule.…``.

    Raises:
        UserError: a run of another task or architecture than a sparse parity in an MLP of one hidden layer.
    """
    task, config = run.task, run.config.model
    if not isinstance(task, SparseParity) or config.has_attention or len(config.neurons) != 1:
        raise UserError(f"expected a sparse parity in an MLP of one hidden layer, {run.path} is another run")
    params = {name: value.double() for name, value in run.params(step).items()}
    W_in, W_U = params["layers.0.W_in"], params["unembed.W_U"]
    w_out = W_U[:, 0] if W_U.shape[1] == 1 else W_U[:, 1] - W_U[:, 0]
    bits, rest = W_in[: task.n_bits], W_in[task.n_bits :]
    found = weight_measures(bits, w_out, rest[0] if len(rest) else None)
    return (
        {f"weights.{name}": value for name, value in found.items()}
        | {"weights.subnetwork_share": _subnetwork_share(Subject.of(config, params, task))}
        | {f"rule.{name}": value for name, value in rule_measures(bits, range(task.k)).items()}
    )


def _subnetwork_share(subject: Subject) -> float:
    """Of all neurons, the share that the smallest subnetwork needs to be as accurate on the training set."""
    train = _train_set(subject.task)
    layer = hidden_layer(subject, train.inputs)
    accuracy = (layer.top_answers() == train.targets.unsqueeze(1)).double().mean(0)
    return smallest_size(accuracy) / len(layer.norms)


@lru_cache(maxsize=16)
def _train_set(task: Task) -> Examples:
    return task.train_set()


def _log10(value: float) -> float:
    return math.log10(max(value, _LEAST)) if not math.isnan(value) else math.nan
