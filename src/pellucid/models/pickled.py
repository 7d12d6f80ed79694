"""Weights of the years before safetensors: pytorch_model.bin, a pickle. Read, never written, and nothing in it is executed.

This is the one place that calls `torch.load`, always with `weights_only=True`: torch then builds tensors, numbers and dictionaries and
refuses whatever else the file asks to be called. The bytes of the tensors are not compressed, so a small file cannot grow large.
"""

import re
import sys
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path

import torch
from torch import Tensor

from pellucid import progress
from pellucid.errors import DataError

AT_ONCE = 32 << 20
"""Bytes of a mapped file that are read before it is opened anew, which gives its pages back."""
_told: set[str] = set()


def open_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU; of a zip archive (torch 1.6 and later) mapped, so nothing is read until it is used.

    Raises DataError when the file is damaged, holds anything but tensors, or asks for code to be run (which is not done).
    """
    mapped = zipfile.is_zipfile(path)
    try:
        if mapped:
            _refuse_packed(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except DataError:
        raise
    except Exception as error:  # whatever a file can make the reader stumble over; torch documents no list
        raise DataError(
            f"{path} {_plainly(str(error))}", "ask for the model as safetensors, or copy it again"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise DataError(f"{path} holds no tensors by name", "a pytorch_model.bin holds a state_dict")
    for name, tensor in state.items():
        _check(path, name, tensor)
    return {name: tensor.detach() for name, tensor in state.items()}


def tensors(path: Path, names: Collection[str], device: str, dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
    """These tensors of a file, each in memory of its own; the largest first, so that the pages it is copied from are given back while
    little else is held."""
    say_once(path)
    state = open_file(path)
    waiting = sorted(names, key=lambda name: -state[name].nbytes)
    limit, read = max(AT_ONCE, sum(state[name].nbytes for name in waiting) // 16), 0
    for name in waiting:
        if read > limit and zipfile.is_zipfile(path):
            del state
            state, read = open_file(path), 0
        read += state[name].nbytes
        yield name, _own(state.pop(name), device, dtype)


def _own(tensor: Tensor, device: str, dtype: torch.dtype | None) -> Tensor:
    final = dtype if dtype and tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=final, device=device).copy_(tensor)


def _check(path: Path, name: str, tensor: object) -> None:
    """Only plain tensors that claim no more than the file holds: a view with stride 0 is small on disk and as large as it likes in memory."""
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise DataError(f"{path}: {name!r} is no plain tensor", "a pytorch_model.bin holds a state_dict")
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        raise DataError(f"{path}: {name!r} claims more numbers than the file holds", "copy the model again")


def _refuse_packed(path: Path) -> None:
    """torch writes its archives unpacked; a packed one may be a small file that unpacks to more than the memory holds."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise DataError(f"{path} is compressed inside", "torch.save writes it uncompressed; copy the model again")


def _plainly(message: str) -> str:
    """What torch's message says, without its advice to execute the file."""
    if "Weights only" not in message and "weights_only" not in message:
        return "is damaged: " + (message.strip().splitlines() or ["it cannot be read"])[0]
    called = re.search(r"GLOBAL (\S+)", message)
    return f"asks for {called[1] if called else 'something that is no tensor'}; nothing in it was executed"


def say_once(path: Path) -> None:
    """A line on stderr when the command line shows what it does."""
    if progress.shown and path.name not in _told:
        _told.add(path.name)
        print(
            f"{path.name} is an old pickle file: read with weights_only=True, nothing in it is executed",
            file=sys.stderr,
        )
