"""Tensor files: whole or refused, whatever happened to them."""

import json
import pickle
import random

import pytest
import torch
from safetensors.torch import save_file

from tasks.base import UserError
from tasks.training.snapshots import read_tensors, write_atomically, write_tensors

TENSORS = {"W": torch.arange(6.0).view(2, 3), "mask": torch.tensor([True, False]), "none": torch.zeros(0, 4)}


def test_tensors_and_metadata_come_back_as_written(tmp_path):
    write_tensors(tmp_path / "a", TENSORS, {"step": 3, "config": {"γ": [0.5, None]}})
    tensors, metadata = read_tensors(tmp_path / "a")
    assert tensors.keys() == TENSORS.keys()
    assert all(tensors[name].equal(value) and tensors[name].dtype == value.dtype for name, value in TENSORS.items())
    assert metadata == {"step": 3, "config": {"γ": [0.5, None]}}
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_every_type_that_weights_come_in_is_checked_and_kept(tmp_path, dtype):
    write_tensors(tmp_path / "a", {"W": torch.arange(4).to(dtype)}, {})
    assert read_tensors(tmp_path / "a")[0]["W"].dtype == dtype


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    write_tensors(tmp_path / "a", TENSORS, {"step": 3})
    whole = (tmp_path / "a").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "a").write_bytes(whole[:length])
        with pytest.raises(UserError):
            read_tensors(tmp_path / "a")


def test_a_flipped_bit_is_refused_or_changes_no_tensor(tmp_path):
    write_tensors(tmp_path / "a", TENSORS, {"step": 3})
    whole = (tmp_path / "a").read_bytes()
    rng = random.Random(0)
    refused = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        (tmp_path / "a").write_bytes(damaged)
        try:
            tensors, _ = read_tensors(tmp_path / "a")
        except UserError:
            refused += 1
        else:  # the bit was one of the metadata's
            assert all(tensors[name].equal(value) for name, value in TENSORS.items())
    assert refused > 0.9 * len(whole)


def test_a_flipped_bit_of_a_weight_is_refused_by_the_checksum(tmp_path):
    write_tensors(tmp_path / "a", {"W": torch.ones(50)}, {})
    damaged = bytearray((tmp_path / "a").read_bytes())
    damaged[-100] ^= 1
    (tmp_path / "a").write_bytes(damaged)
    with pytest.raises(UserError, match="does not match its checksum"):
        read_tensors(tmp_path / "a")


class Bomb:
    """An object whose unpickling would be noticed."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle was executed')",))


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_of_any_protocol_is_refused_unread(tmp_path, protocol):
    (tmp_path / "a").write_bytes(pickle.dumps(Bomb(), protocol=protocol))
    with pytest.raises(UserError):
        read_tensors(tmp_path / "a")


def test_a_torch_file_is_called_a_pickle(tmp_path):
    torch.save({"W": torch.ones(2)}, tmp_path / "a")
    with pytest.raises(UserError, match=r"expected safetensors, got a pickle at .*: it was not read"):
        read_tensors(tmp_path / "a")


def test_a_safetensors_file_of_other_origin_is_refused_for_want_of_a_checksum(tmp_path):
    save_file({"W": torch.ones(2)}, tmp_path / "a")
    with pytest.raises(UserError, match="does not match its checksum"):
        read_tensors(tmp_path / "a")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"expected a safetensors file at .*gone, found none"):
        read_tensors(tmp_path / "gone")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    write_tensors(tmp_path / "a", {"W": torch.ones(2)}, {"step": 1})

    def fails(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", fails)
    with pytest.raises(OSError, match="no space"):
        write_atomically(tmp_path / "a", b"half")
    assert read_tensors(tmp_path / "a")[1] == {"step": 1}


def test_metadata_is_json_that_other_readers_find_in_the_header(tmp_path):
    write_tensors(tmp_path / "a", {"W": torch.ones(2)}, {"step": 1})
    raw = (tmp_path / "a").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert json.loads(header["__metadata__"]["metadata"]) == {"step": 1}
