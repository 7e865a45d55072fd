"""What is learned, and how it is trained: tasks, models, training. Names load when they are used."""

from typing import TYPE_CHECKING, Any

from tasks.lazy import lazily
from tasks.processor import ask_for_one_order_of_sums
from tasks.registry import FAMILIES

if TYPE_CHECKING:  # what an editor completes; at run time task classes come from the registry
    from tasks import variants
    from tasks.base import Examples, Task, UserError
    from tasks.families.anchor import Anchor, AnchorComposition
    from tasks.families.group import GroupComposition
    from tasks.families.intervals import AnchorIntervals
    from tasks.families.memory_reasoning import MemoryReasoning
    from tasks.families.modular import ModularArithmetic
    from tasks.families.parity import SparseParity
    from tasks.families.questions import ReadingComprehension, WorkingMemory
    from tasks.families.recall import Classification, Identity, Recitation
    from tasks.families.regression import SineRegression
    from tasks.sequence import SequenceTask

_WHERE = {
    "Anchor": "tasks.families.anchor:Anchor",
    "Examples": "tasks.base:Examples",
    "SequenceTask": "tasks.sequence:SequenceTask",
    "Task": "tasks.base:Task",
    "UserError": "tasks.base:UserError",
    "variants": "tasks.variants",
    **{line.task.partition(":")[2]: line.task for line in FAMILIES.values() if isinstance(line.task, str)},
}
__all__ = sorted(_WHERE)  # pyright: ignore[reportUnsupportedDunderAll]

ask_for_one_order_of_sums()


def __getattr__(name: str) -> Any:
    return lazily(__name__, name, _WHERE)
