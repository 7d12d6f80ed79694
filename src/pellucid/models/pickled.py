"""Weights of the years before safetensors: pytorch_model.bin, a pickle. Read, never written, and nothing in it is executed.

This is the one place that calls `torch.load`, always with `weights_only=True`: torch then builds tensors, numbers and dictionaries and
refuses whatever else the file asks to be called. The bytes of the tensors are not compressed, so a small file cannot grow large.
"""

import re
import sys
import zipfile
from collections.abc import Collection, Iterator
from itertools import count
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter

from pellucid import progress
from pellucid.errors import DataError

AT_ONCE = 8 << 20
"""Bytes of a mapped file that are read before it is opened anew, which gives its pages back."""
STATE_DICT = "a pytorch_model.bin holds a state_dict and nothing else"
_told: set[str] = set()


def open_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU; of a zip archive (torch 1.6 and later) mapped, so nothing is read until it is used.

    Raises DataError when the file is damaged, holds anything but tensors, or asks for code to be run (which is not done).
    """
    try:
        if _is_archive(path):
            _refuse_packed(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_archive(path))
    except DataError:
        raise
    except Exception as error:  # whatever a file can make the reader stumble over: torch promises no list
        raise DataError(f"{path} {_plainly(str(error))}", "take the model as safetensors, or copy it again") from None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise DataError(f"{path} holds no tensors by name", STATE_DICT)
    for name, tensor in state.items():
        _check(path, name, tensor)
    return {name: tensor.detach() for name, tensor in state.items()}


def tensors(path: Path, names: Collection[str], device: str, dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
    """These tensors of a file, each in memory of its own, copied piece by piece from pages that are given back in between.

    A file older than torch 1.6 cannot be mapped: it is held whole while it is copied."""
    say_once(path)
    state, read = open_file(path), 0
    most = max(AT_ONCE, sum(state[name].nbytes for name in names) // 16) if _is_archive(path) else sys.maxsize
    for name in sorted(names, key=lambda name: -state[name].nbytes):  # as in weights._read_file
        shape, stored = state[name].shape, state[name].dtype
        ours = torch.empty(shape, dtype=dtype if dtype and stored.is_floating_point else stored, device=device)
        step = most // stored.itemsize
        for begin, part in zip(count(0, step), ours.view(-1).split(step), strict=False):
            part.copy_(state[name].reshape(-1)[begin : begin + step])
            read += part.numel() * stored.itemsize
            if read >= most:
                state, read = open_file(path), 0
        del state[name]
        yield name, ours


def _check(path: Path, name: str, tensor: object) -> None:
    """Only plain tensors, none of which claims more than the file holds: with stride 0 a few bytes are as many numbers as one likes."""
    if type(tensor) not in (Tensor, Parameter) or tensor.layout != torch.strided or tensor.device.type != "cpu":  # type: ignore[attr-defined]
        raise DataError(f"{path}: {name!r:.80} is no plain tensor", STATE_DICT)
    if tensor.nbytes > tensor.untyped_storage().nbytes():  # type: ignore[attr-defined]
        raise DataError(f"{path}: {name!r:.80} claims more numbers than the file holds", "copy the model again")


def _is_archive(path: Path) -> bool:
    """A zip file, by torch's own rule. The pickles before that cannot be mapped."""
    with open(path, "rb") as file:
        return file.read(4) == b"PK\3\4"


def _refuse_packed(path: Path) -> None:
    """torch does not compress its archives; in one that is compressed, a small file may hold more than fits into memory."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise DataError(f"{path} is compressed inside", "torch.save does not compress; copy the model again")


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
