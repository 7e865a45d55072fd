"""Presets of every task family, by size: a table per family, which its line in ``tasks.registry`` names.

*tiny* takes seconds to a minute, *default* minutes on two cores, *paper* is the published setting; *fast* is the
published problem with whatever makes its solution appear soonest. *explorable* and *circle* are the perceptrons of the
explorable "Do Machine Learning Models Memorize or Generalize?".
"""

from tasks.base import UserError
from tasks.presets.base import Preset
from tasks.registry import families, family

__all__ = ["Preset", "preset", "sizes", "usual_size"]


def sizes(name: str) -> tuple[str, ...]:
    """Names of a family's presets, the smallest first."""
    return tuple(family(name).preset_table())


def usual_size(name: str) -> str:
    """What ``train`` takes where no preset is named: *default*, or the first there is."""
    known = sizes(name)
    return "default" if "default" in known else known[0]


def preset(name: str, size: str) -> Preset:
    """The preset of a task family.

    Raises:
        UserError: no such family, or it has no such size.
    """
    if name not in families():
        raise UserError(f"expected a task among {', '.join(families())}, got {name!r}")
    table = family(name).preset_table()
    if size not in table:
        raise UserError(f"expected a preset among {', '.join(table)} for {name}, got {size!r}")
    return table[size]
