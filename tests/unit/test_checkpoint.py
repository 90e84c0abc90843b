"""Checkpoints under every damage that a disk, a kill or a stranger can do."""

import errno
import hashlib
import os
import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from weedseg.errors import CheckpointError, OutputError
from weedseg.training import checkpoint


def state(number):
    return {
        "step": number,
        "net": {"weight": torch.arange(12.0).reshape(3, 4) + number, "n": torch.tensor(number)},
        "nested": {3: torch.ones(2, dtype=torch.uint8), "list": [1, 2.5, None, "text"]},
        "infinite": float("inf"),
    }


def save(folder, number, kind=checkpoint.STEP):
    name = checkpoint.checkpoint_name(kind, number)
    return checkpoint.save_checkpoint(folder, name, state(number))


def seal(path):
    """Write the right checksum beside whatever bytes are there."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".sha256").write_text(digest)


def test_what_is_saved_is_loaded(tmp_path):
    found = checkpoint.load_checkpoint(save(tmp_path / "new" / "folder", 7))
    assert found["step"] == 7
    assert torch.equal(found["net"]["weight"], state(7)["net"]["weight"])
    assert found["nested"]["list"] == [1, 2.5, None, "text"]
    assert found["nested"][3].dtype == torch.uint8


def test_saving_leaves_no_other_file(tmp_path):
    save(tmp_path, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "step-000000001.pt",
        "step-000000001.sha256",
    ]


def test_the_newest_is_loaded(tmp_path):
    for number in (900, 1000, 99):
        save(tmp_path, number)
    save(tmp_path, 5000, checkpoint.BEST)
    assert checkpoint.load_newest(tmp_path)["step"] == 1000
    assert checkpoint.load_newest(tmp_path, checkpoint.BEST)["step"] == 5000


def test_nothing_to_load(tmp_path):
    assert checkpoint.load_newest(tmp_path) is None
    assert checkpoint.load_newest(tmp_path / "missing") is None
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load_checkpoint(tmp_path / "step-000000001.pt")


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 8
    path.write_bytes(data)


def lose_sidecar(path):
    path.with_suffix(".sha256").unlink()


def empty_sidecar(path):
    path.with_suffix(".sha256").write_bytes(b"")


def binary_sidecar(path):
    path.with_suffix(".sha256").write_bytes(b"\xff\xfe\x00")


def become_folder(path):
    path.unlink()
    path.mkdir()


DAMAGE = [truncate, empty, flip_bit, lose_sidecar, empty_sidecar, binary_sidecar]


@pytest.mark.parametrize("damage", [*DAMAGE, become_folder])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_is_used(tmp_path, damage, caplog):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    damage(newest)
    with pytest.raises(CheckpointError):
        checkpoint.load_checkpoint(newest)
    assert checkpoint.load_newest(tmp_path)["step"] == 1
    assert "step-000000002.pt" in caplog.text
    assert "falling back" in caplog.text


def test_every_single_flipped_bit_is_noticed(tmp_path):
    path = save(tmp_path, 1)
    data = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, 8 * len(data), 40).tolist():
        broken = bytearray(data)
        broken[place // 8] ^= 1 << place % 8
        path.write_bytes(broken)
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoint.load_checkpoint(path)


def test_all_damaged_is_none(tmp_path):
    for number, damage in enumerate(DAMAGE):
        damage(save(tmp_path, number))
    assert checkpoint.load_newest(tmp_path) is None


# --- full disks and broken writes --------------------------------------------------------------


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_full_disk_leaves_the_old_checkpoint_whole(tmp_path, monkeypatch, call):
    save(tmp_path, 1)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(*{"fsync": (os, "fsync"), "open": (Path, "open")}[call], full_disk)
    for number in (1, 2):  # over itself, and anew
        with pytest.raises(OutputError, match=r"No space left.*--resume"):
            save(tmp_path, number)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert checkpoint.load_newest(tmp_path)["step"] == 1


def test_a_disk_that_fills_up_before_the_checksum_falls_back(tmp_path, monkeypatch):
    save(tmp_path, 1)
    calls = []

    def fills_up(descriptor, real=os.fsync):
        calls.append(descriptor)
        if len(calls) > 2:  # file and folder of the checkpoint, then the sidecar
            full_disk()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fills_up)
    with pytest.raises(OutputError):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert (tmp_path / "step-000000002.pt").exists()
    assert checkpoint.load_newest(tmp_path)["step"] == 1
    save(tmp_path, 2)
    assert checkpoint.load_newest(tmp_path)["step"] == 2


def test_a_folder_that_is_a_file_is_said_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        checkpoint.write_durably(tmp_path / "file" / "a.bin", b"data")


def test_a_file_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
    order = []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("sync"), real_sync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("name"), real_replace(a, b)))
    monkeypatch.setattr(os, "rename", lambda a, b: (order.append("name"), real_replace(a, b)))
    path = tmp_path / "a.bin"
    checkpoint.write_durably(path, b"data")
    assert order == ["sync", "name", "sync"]
    assert path.read_bytes() == b"data"


# --- housekeeping ------------------------------------------------------------------------------


def test_the_newest_two_and_the_best_are_kept(tmp_path):
    for number in range(1, 6):
        save(tmp_path, number)
        checkpoint.keep_newest(tmp_path)
    save(tmp_path, 2, checkpoint.BEST)
    checkpoint.keep_newest(tmp_path)
    assert sorted(p.stem for p in tmp_path.glob("*.pt")) == [
        "best-000000002",
        "step-000000004",
        "step-000000005",
    ]
    assert len(list(tmp_path.glob("*.sha256"))) == 3


def test_keeping_more_than_there_are(tmp_path):
    save(tmp_path, 1)
    checkpoint.keep_newest(tmp_path, 5)
    assert len(checkpoint.list_checkpoints(tmp_path, checkpoint.STEP)) == 1


# --- foreign bytes -----------------------------------------------------------------------------


class Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["torch", "old torch", "pickle"])
def test_code_in_a_checkpoint_is_never_run(tmp_path, form):
    marker, path = tmp_path / "ran", tmp_path / "step-000000001.pt"
    bomb = {"step": 1, "net": Bomb(marker)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, path, _use_new_zipfile_serialization=form == "torch")
    seal(path)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.load_checkpoint(path)
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_foreign_bytes_are_refused_and_nothing_else_happens(tmp_path):
    path = save(tmp_path, 1)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    samples = [
        b"",
        b"PK\x03\x04",
        b"\x80\x02}",
        b"\x80\x04N.",
        rng.bytes(2000),
        data[:300],
        data[200:],
    ]
    for _ in range(30):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 8).tolist():
            broken[place] = int(rng.integers(256))
        samples.append(bytes(broken))
    for sample in samples:
        path.write_bytes(sample)
        seal(path)
        with suppress(CheckpointError):
            assert isinstance(checkpoint.load_checkpoint(path), dict)


def test_a_tensor_is_no_checkpoint(tmp_path):
    path = tmp_path / "step-000000001.pt"
    torch.save(torch.ones(3), path)
    seal(path)
    with pytest.raises(CheckpointError, match="holds Tensor"):
        checkpoint.load_checkpoint(path)
