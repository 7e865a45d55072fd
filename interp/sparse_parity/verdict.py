"""How a model tells the parity of a few bits: by these bits, or from a table."""

from collections.abc import Mapping
from typing import Any

from interp.sparse_parity.parity import PARITY_RULE, ParityResult
from interp.subject import Subject
from interp.verdict import Verdict

NEEDS = ("parity",)
SOLUTIONS = ("generalising by k bits", "memorising", "undetermined")
RULE = PARITY_RULE


def verdict(subject: Subject, results: Mapping[str, Any]) -> Verdict:
    """The verdict that the results allow; *undetermined* where the analysis that decides was not run."""
    found = results.get("parity")
    if not isinstance(found, ParityResult):
        sentence = "undetermined: the analysis parity was not run."
        return Verdict(solution="undetermined", sentence=sentence, rule=RULE)
    return parity_verdict(found)


def parity_verdict(result: ParityResult) -> Verdict:
    """Generalising by k bits or memorising, by ``RULE``."""
    said, needed = result.solution.replace("by k bits", f"by {result.k} bits"), result.subnetwork
    sentence = (
        f"{said}: train accuracy {result.train_accuracy:.1%}, test accuracy {result.test_accuracy:.1%}; Walsh "
        f"coefficient of the relevant bits {result.walsh} (random weights {result.control_walsh:.3f}, largest other "
        f"subset {result.largest_other:.3f}); {result.relevant_share:.1%} of the bits' weight mass on them (random "
        f"weights {result.control_relevant_share:.1%}); {needed.size} of {needed.neurons} neurons do the work."
    )
    return Verdict(solution=result.solution, sentence=sentence, rule=RULE)
