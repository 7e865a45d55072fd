"""Weights on disk: safetensors files that are whole or absent, carry their own checksum, and are never pickles."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tasks.base import UserError

_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def write_atomically(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``: a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and bytes, in the order of names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return sha.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors with JSON metadata and their checksum."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = {"metadata": json.dumps(dict(metadata)), "sha256": checksum(tensors)}
    write_atomically(path, save(tensors, described))


def read_tensors(path: Path) -> tuple[dict[str, Float[Tensor, "..."]] | dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file that ``write_tensors`` wrote, and its metadata.

    Raises:
        UserError: no such file, a pickle, a file that is cut short, or contents that do not match their checksum.
    """
    if not path.is_file():
        raise UserError(f"expected a safetensors file at {path}, found none")
    with open(path, "rb") as file:
        start = file.read(4)
    if start.startswith(_PICKLE_STARTS):
        raise UserError(
            f"expected safetensors, got a pickle at {path}: it was not read, because reading one runs its code"
        )
    try:
        with safe_open(path, framework="pt") as file:
            described = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(
            f"expected a whole safetensors file, {path} is cut short or damaged: copy or train it again"
        ) from error
    if checksum(tensors) != described.get("sha256"):
        raise UserError(
            f"expected the weights that were written, {path} does not match its checksum: copy or train it again"
        )
    try:
        return tensors, json.loads(described["metadata"])
    except (KeyError, ValueError) as error:
        raise UserError(f"expected JSON in the metadata of {path}, it is damaged: copy or train it again") from error
