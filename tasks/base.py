"""What a task is: inputs, targets, a split, candidate rules, and the place where the answer is read.

A task is a frozen dataclass whose fields rebuild it (they are what a run folder's ``config.json`` stores); everything
else is derived. Randomness comes from numpy's Philox generator, keyed by a seed and a name, never from global state.

Several designs meet here:

* ``Examples`` is the one form in which data leaves a task: tokens, targets and, where they exist, the answers that
  candidate rules would give.
* ``train_set()`` is what training draws batches from, ``evaluation_sets()`` is what is measured along the way. Data
  without end come from ``batch(seed, step, size)`` instead, a function of its arguments alone.
* an example has one answer, or several: one at each of ``answer_positions``.
* a task that is a table (modular arithmetic) also has ``all_inputs()``; a task that samples (anchors) does not.
"""

import difflib
import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, cast, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = Any  # torch takes a second to import: it is loaded where the first tensor is made, so that --help is quick


class UserError(ValueError):
    """A mistake that its message explains: what was expected, what was found, what to do. The command line prints it in
    one line and exits with status 2."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Inputs with their targets, and what each candidate rule would answer.

    ``inputs`` [example, pos] are token ids, ``targets`` [example] the taught or true answers, ``rules`` maps a rule's
    name to its answers [example]. In a regression inputs are real vectors, one per example or one per position, and
    targets and what rules predict are numbers [example, d_out]. Where an example has several answers, targets and rules
    have an axis more: [example, answer].
    """

    inputs: Int[Tensor, "example pos"] | Float[Tensor, "example *pos d_input"]
    targets: Int[Tensor, "example *answer"] | Float[Tensor, "example *answer d_out"]
    rules: Mapping[str, Int[Tensor, "example *answer"] | Float[Tensor, "example *answer d_out"]] = field(
        default_factory=dict
    )

    def __len__(self) -> int:
        return len(self.targets)


def joined(parts: Sequence[Examples]) -> Examples:
    """The examples of all parts in order, with the answers of the rules that all parts have."""
    import torch

    names = [name for name in parts[0].rules if all(name in part.rules for part in parts)]
    return Examples(
        inputs=torch.cat([part.inputs for part in parts]),
        targets=torch.cat([part.targets for part in parts]),
        rules={name: torch.cat([part.rules[name] for part in parts]) for name in names},
    )


@runtime_checkable
class Task(Protocol):
    """A problem whose rule is known. Implementations are frozen dataclasses; see ``AnchorComposition``.

    A task may say more than this: ``answer_positions``, a tuple of positions, where an example has several answers;
    ``d_input``, the size of the real vectors that a sequence is made of; ``batch``, if its data have no end (see
    ``EndlessTask``).
    """

    family: ClassVar[str]

    @property
    def data_seed(self) -> int:
        """Seed of what was sampled and how it was split."""
        ...

    @property
    def d_vocab(self) -> int:
        """Number of input tokens; 0 where inputs are real vectors."""
        ...

    @property
    def d_vocab_out(self) -> int:
        """Number of possible answers; where targets are numbers, how many."""
        ...

    @property
    def n_ctx(self) -> int:
        """Length of an input."""
        ...

    @property
    def answer_position(self) -> int:
        """Position at which the answer is read; of several answers the last."""
        ...

    def train_set(self) -> Examples:
        """What training draws its batches from; of data without end a sample, which stands for them in a run folder."""
        ...

    def evaluation_sets(self) -> dict[str, Examples]:
        """What is measured while training: always ``train`` and ``test``, and whatever else tells solutions apart."""
        ...

    def split_tensors(self) -> dict[str, Tensor]:
        """Masks and seeds from which the split can be made again."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON values; ``task_from_dict`` of ``tasks`` reads them back."""
        ...


@runtime_checkable
class EndlessTask(Task, Protocol):
    """A task whose data have no end: each step of each run sees a batch of its own."""

    def batch(self, seed: int, step: int, size: int) -> Examples:
        """What a run with this seed sees at this step: a function of the arguments and of the task's fields alone."""
        ...


def answer_positions(task: Task) -> tuple[int, ...]:
    """The positions at which the answers of an example are read, ascending; most often one."""
    return tuple(getattr(task, "answer_positions", (task.answer_position,)))


@dataclass(frozen=True, kw_only=True)
class Fields:
    """A frozen dataclass that is read from a mapping and refuses a key it does not know, naming the nearest one it
    does."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The instance with these field values; lists become tuples.

        Raises:
            UserError: a key that is no field.
        """
        refuse_unknown(values, [f.name for f in fields(cls)], cls.__name__)
        return cls(**{key: as_tuples(value) for key, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Field values, tuples as lists, ready for JSON."""
        return {f.name: as_lists(getattr(self, f.name)) for f in fields(self)}


def refuse_unknown(keys: Iterable[str], known: Sequence[str], where: str) -> None:
    """Nothing, if every key is known.

    Raises:
        UserError: one is not; names the nearest that is.
    """
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise UserError(f"{where} has no field {key!r}: {hint}")


def as_tuples(value: Any) -> Any:
    """The value with every list, at any depth, as a tuple."""
    return tuple(as_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def as_lists(value: Any) -> Any:
    """The value with every tuple, at any depth, as a list."""
    return [as_lists(v) for v in value] if isinstance(value, list | tuple) else value


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A Philox generator for one purpose: the stream depends on the seed and on the names, and on nothing else.

    Raises:
        UserError: the seed is negative.
    """
    if seed < 0:
        raise UserError(f"expected a seed of at least 0, got {seed}")
    key = tuple(name if isinstance(name, int) else zlib.crc32(name.encode()) for name in names)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy=seed, spawn_key=key)))


def digest(examples: Examples) -> str:
    """SHA-256 of inputs and targets in order, little-endian: integers as 32-bit ones, floats as they are."""
    sha = hashlib.sha256()
    for tensor in (examples.inputs, examples.targets):
        values = tensor.numpy()
        kind = values.dtype.newbyteorder("<") if values.dtype.kind == "f" else "<i4"
        sha.update(np.ascontiguousarray(values.astype(kind)).tobytes())
    return sha.hexdigest()


def as_tensor(values: np.ndarray) -> Tensor:
    """Integers as an int64 tensor, truth values as a boolean one, floats as a float32 one."""
    import torch

    dtype = {"b": np.bool_, "f": np.float32}.get(values.dtype.kind, np.int64)
    return torch.from_numpy(np.ascontiguousarray(values, dtype=dtype))


def is_prime(n: int) -> bool:
    """Whether n is a prime number."""
    return n >= 2 and all(n % d for d in range(2, int(n**0.5) + 1))


def as_task(x: object) -> Task:
    """The object, if it is a task.

    Raises:
        UserError: it is not.
    """
    if not isinstance(x, Task):
        raise UserError(f"expected a task such as ModularArithmetic(p=113), got {type(x).__name__}")
    return cast(Task, x)
