"""``rulelens``: train small models on problems whose rule is known, and say whether they learned it."""

import sys

from tasks.base import UserError
from tasks.terminal import mistakes_in_one_line

_HELP = """usage: rulelens COMMAND …

Did the model learn the rule, or recite the table?

commands (each has --help):
  list    the tasks and their presets
  train   train a model on a task
  sweep   train a grid of models
  show    what a run folder holds
  probe   say how trained models solve their task"""


def main() -> None:
    """Run the command line: ``probe`` is ``python -m interp.probe``, the others are those of ``python -m tasks``."""
    with mistakes_in_one_line():
        match sys.argv[1:]:
            case [] | ["-h" | "--help"]:
                print(_HELP)
            case ["probe", *rest]:
                from interp import probe

                probe.main(rest)
            case ["list" | "train" | "sweep" | "show", *_]:
                from tasks.__main__ import main as train_and_list

                train_and_list()
            case [word, *_]:
                raise UserError(f"expected a command among list, train, sweep, show, probe, got {word!r}")


if __name__ == "__main__":
    main()
