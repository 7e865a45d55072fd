"""What is learned, and how it is trained: tasks, models, training. Names load when they are used."""

from typing import TYPE_CHECKING, Any

from tasks.lazy import lazily
from tasks.processor import ask_for_one_order_of_sums

if TYPE_CHECKING:
    from tasks import variants
    from tasks.anchor import Anchor, AnchorComposition
    from tasks.base import Examples, Task, UserError
    from tasks.groups import GroupComposition
    from tasks.intervals import AnchorIntervals
    from tasks.memory_reasoning import MemoryReasoning
    from tasks.modular import ModularArithmetic
    from tasks.parity import SparseParity
    from tasks.questions import ReadingComprehension, WorkingMemory
    from tasks.recall import Classification, Identity, Recitation
    from tasks.regression import SineRegression
    from tasks.sequence import SequenceTask

__all__ = [
    "Anchor",
    "AnchorComposition",
    "AnchorIntervals",
    "Classification",
    "Examples",
    "GroupComposition",
    "Identity",
    "MemoryReasoning",
    "ModularArithmetic",
    "ReadingComprehension",
    "Recitation",
    "SequenceTask",
    "SineRegression",
    "SparseParity",
    "Task",
    "UserError",
    "WorkingMemory",
    "variants",
]

ask_for_one_order_of_sums()


def __getattr__(name: str) -> Any:
    return lazily(
        __name__,
        name,
        {
            "Anchor": "tasks.anchor:Anchor",
            "AnchorComposition": "tasks.anchor:AnchorComposition",
            "AnchorIntervals": "tasks.intervals:AnchorIntervals",
            "Classification": "tasks.recall:Classification",
            "Examples": "tasks.base:Examples",
            "GroupComposition": "tasks.groups:GroupComposition",
            "Identity": "tasks.recall:Identity",
            "MemoryReasoning": "tasks.memory_reasoning:MemoryReasoning",
            "ModularArithmetic": "tasks.modular:ModularArithmetic",
            "ReadingComprehension": "tasks.questions:ReadingComprehension",
            "Recitation": "tasks.recall:Recitation",
            "SequenceTask": "tasks.sequence:SequenceTask",
            "SineRegression": "tasks.regression:SineRegression",
            "SparseParity": "tasks.parity:SparseParity",
            "Task": "tasks.base:Task",
            "UserError": "tasks.base:UserError",
            "WorkingMemory": "tasks.questions:WorkingMemory",
            "variants": "tasks.variants",
        },
    )
