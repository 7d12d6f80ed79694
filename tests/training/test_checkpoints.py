"""Checkpoints are whole or not believed: every damage is named and the one before is used."""

import collections
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from pellucid.errors import DataError
from pellucid.training import checkpoints

FILES = ("model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json", "run.toml", "MANIFEST.json")


def write(folder: Path, step: int) -> Path:
    tensors = {stem: {"a": torch.full((3, 2), float(step))} for stem in ("model", "optimizer", "ema")}
    return checkpoints.write(folder, step, tensors, {"step": step}, {"run.toml": "steps = 8"})


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_damage_is_named_and_the_one_before_is_used(tmp_path, name, damage):
    old, new = write(tmp_path, 2), write(tmp_path, 4)
    checkpoints.verify(new)
    damage(new / name)
    with pytest.raises(DataError):
        checkpoints.verify(new)
    said: list[str] = []
    assert checkpoints.latest(tmp_path, said.append) == old
    assert "step-000004" in said[0] and (name in said[0] or name == "MANIFEST.json")
    damage(old / name)
    with pytest.raises(DataError, match="no checkpoint is whole"):
        checkpoints.latest(tmp_path, said.append)


def test_a_file_that_was_not_written_is_named(tmp_path):
    path = write(tmp_path, 0)
    (path / "new.py").write_text("")
    with pytest.raises(DataError, match=r"new\.py is not in the manifest"):
        checkpoints.verify(path)


def test_a_newer_format_is_refused(tmp_path):
    path = write(tmp_path, 0)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    (path / "MANIFEST.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(DataError, match="format 99"):
        checkpoints.verify(path)


def test_a_damaged_run_goes_on_from_the_one_before(tmp_path, toy):
    """And the broken one is set aside, so that it never counts as one of those kept."""
    toy.train(toy.run(tmp_path / "a"), toy.Finished())
    toy.train(toy.run(tmp_path / "b"), toy.Finished())
    flip_a_bit(tmp_path / "b/checkpoints/step-000008/optimizer.safetensors")
    assert toy.train(toy.run(tmp_path / "b"), toy.Finished()).kind == "done"
    assert (tmp_path / "b/checkpoints/broken-step-000008").is_dir()
    one, other = (checkpoints.read(tmp_path / x / "checkpoints/step-000008", "model") for x in "ab")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_never_a_silent_fresh_start(tmp_path, toy):
    toy.train(toy.run(tmp_path), toy.Finished())
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(DataError, match="no checkpoint is whole"):
        toy.train(toy.run(tmp_path), toy.Finished())


def test_keeps_the_newest_and_the_best(tmp_path):
    for step in range(6):
        write(tmp_path, step)
    checkpoints.prune(tmp_path, 1, {0})
    assert list(checkpoints.all_steps(tmp_path)) == [0, 4, 5]


def test_leftovers_of_a_kill_are_cleared(tmp_path):
    write(tmp_path, 2)
    (tmp_path / ".tmp-4-123").mkdir()
    (tmp_path / ".old-step-000000-123").mkdir()
    checkpoints.tidy(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000002"]


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, toy, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    real = shutil.disk_usage
    run = toy.run(
        tmp_path, lambda step: step == 3 and monkeypatch.setattr(shutil, "disk_usage", lambda p: usage(9, 9, 9))
    )
    with pytest.raises(checkpoints.NoSpace, match="the disk is full") as raised:
        toy.train(run, toy.Finished())
    assert raised.value.exit_code == 75
    assert list(checkpoints.all_steps(tmp_path / "checkpoints")) == [0, 2]
    monkeypatch.setattr(shutil, "disk_usage", real)
    assert toy.train(toy.run(tmp_path), toy.Finished()).kind == "done"


def test_a_disk_that_fills_while_writing_leaves_nothing_behind(tmp_path, monkeypatch):
    write(tmp_path, 2)
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "no space left on device")))
    with pytest.raises(checkpoints.NoSpace):
        write(tmp_path, 4)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000002"]


def test_weights_that_share_memory_are_stored_apart_and_tied_ones_once(tmp_path):
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.arange(6.0).view(2, 3))
            self.b = self.a
            self.register_buffer("part", self.a.detach()[0])
            self.register_buffer("turned", self.a.detach().T)

    model, other = Views(), Views()
    named = checkpoints.weights(model)
    assert set(named) == {"a", "part", "turned"}
    path = checkpoints.write(tmp_path, 0, {"model": named}, {})
    with torch.no_grad():
        other.a.zero_()
    checkpoints.load_weights(other, checkpoints.read(path, "model"), "here")
    assert torch.equal(other.b, model.a) and torch.equal(other.turned, model.turned)
