"""Checkpoints that appear whole or not at all, and that are checked before they are believed.

A checkpoint is a folder `step-000123` with model.safetensors, optimizer.safetensors, ema.safetensors (if
there is one), state.json and MANIFEST.json with the size and SHA-256 of each file. It is written into a
temporary folder beside it, hashed, flushed to disk and then renamed, so a kill at any moment leaves the ones
before. The hashes are needed: a flipped byte passes silently through safetensors. Nothing is pickled.

No random state is stored: the loop seeds every forward pass from (seed, step, micro-batch, rank).
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import safetensors
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pellucid.errors import DataError, UserError
from pellucid.parts.lora import attached

FORMAT = 1
Note = Callable[[str], None]


class NoSpace(UserError):
    """The disk is too full for the next checkpoint. The ones before are whole: make room and resume."""

    exit_code = 75


@contextmanager
def lock(run: Path) -> Iterator[None]:
    """Only one process may train in a run folder at a time.

    UserError for the second. A process that dies lets go.
    """
    run.mkdir(parents=True, exist_ok=True)
    guard = filelock.FileLock(run / ".lock")
    try:
        guard.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"{run}: another process is training here", "wait for it, or choose another --out") from None
    try:
        yield
    finally:
        guard.release()


def write(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    copies: Mapping[str, str] | None = None,
) -> Path:
    """Write `tensors` (file stem -> name -> tensor), `state` and `copies` (file name -> text) as the
    checkpoint of `step`; returns its folder.

    NoSpace if there is less room than twice its size; what was there before stays as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = sum(t.numel() * t.element_size() for named in tensors.values() for t in named.values()) + 2**16
    _check_space(folder, 2 * size)
    temporary, final = folder / f".tmp-{step}-{os.getpid()}", folder / f"step-{step:06d}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        for stem, named in tensors.items():
            save_file(dict(named), temporary / f"{stem}.safetensors", metadata={"format": "pt"})
        for name, text in {**(copies or {}), "state.json": json.dumps(state, indent=1)}.items():
            (temporary / name).write_text(text, encoding="utf-8")
        listed = {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in sorted(temporary.iterdir())}
        versions = {"torch": torch.__version__, "safetensors": safetensors.__version__}
        manifest = {"format": FORMAT, "versions": versions, "files": listed}
        (temporary / "MANIFEST.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in [*temporary.iterdir(), temporary]:
            _sync(path)
        _remove(final)  # only ever a twin or a broken one: the newest whole one is where the run goes on from
        temporary.rename(final)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if getattr(error, "errno", 0) == errno.ENOSPC or "No space left" in str(error):  # safetensors tells no number
            _check_space(folder, 2**63)
        raise
    return final


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        need = f"a checkpoint needs {needed / 2**20:,.0f} MiB, " if needed < 2**60 else ""
        raise NoSpace(
            f"{folder}: the disk is full: {need}{free / 2**20:,.0f} MiB are free",
            "make room and resume: the checkpoints before this one are whole",
        )


def _sync(path: Path) -> None:
    """Flush a file or folder to disk. Windows cannot open folders, and flushes only files opened for writing."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    """Delete a checkpoint so that no half of it is ever taken for one."""
    if path.exists():
        aside = path.with_name(f".old-{path.name}-{os.getpid()}")
        path.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: Path) -> None:
    """Check every file of a checkpoint against its manifest.

    DataError names the first that is missing, cut short, altered or not listed.
    """
    try:
        manifest = json.loads((path / "MANIFEST.json").read_text(encoding="utf-8"))
        listed = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
        written_as = int(manifest["format"])
    except FileNotFoundError:
        raise DataError(f"{path / 'MANIFEST.json'} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DataError(f"{path / 'MANIFEST.json'} cannot be read: {error}") from None
    if written_as > FORMAT:
        raise DataError(f"{path} has format {written_as}; this version reads up to {FORMAT}", "use a newer pellucid")
    extra = {p.name for p in path.iterdir()} - set(listed) - {"MANIFEST.json"}
    if extra:
        raise DataError(f"{path / min(extra)} is not in the manifest")
    for name, (size, digest) in listed.items():
        file = path / name
        if not file.is_file():
            raise DataError(f"{file} is missing")
        if file.stat().st_size != size:
            raise DataError(f"{file} has {file.stat().st_size} bytes; {size} were written")
        if sha256(file) != digest:
            raise DataError(f"{file} was altered: its SHA-256 is not the one written down")


def all_steps(folder: Path) -> dict[int, Path]:
    """Step -> folder of every visible checkpoint, oldest first, whole or not."""
    found = ((re.fullmatch(r"step-(\d+)", p.name), p) for p in (folder.iterdir() if folder.is_dir() else ()))
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def latest(folder: Path, note: Note) -> Path:
    """The newest checkpoint that is whole.

    A broken one is named to `note` and the one before is tried; DataError if none is left.
    """
    for path in reversed(all_steps(folder).values()):
        try:
            verify(path)
            return path
        except DataError as error:
            note(f"broken checkpoint: {error.problem}; trying the one before")
    raise DataError(f"{folder}: no checkpoint is whole", "start again with `pellucid train`; the run cannot be resumed")


def tidy(folder: Path, current: int) -> None:
    """Before going on from step `current`: newer ones are broken, set them aside as `broken-…`; drop what a
    killed process left half done.
    """
    for step, path in all_steps(folder).items():
        if step > current:
            aside = folder / f"broken-{path.name}"
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
    for left in [*folder.glob(".tmp-*"), *folder.glob(".old-*")]:
        shutil.rmtree(left, ignore_errors=True)


def prune(folder: Path, keep: int, protected: Collection[int]) -> None:
    """Delete all but the newest `keep` (at least 2) checkpoints and the `protected` steps."""
    steps = all_steps(folder)
    for step in list(steps)[: -max(2, keep)]:
        if step not in protected:
            _remove(steps[step])


def read(path: Path, stem: str) -> dict[str, Tensor]:
    """The tensors of one file of a checkpoint, on the CPU; empty if there is no such file. Verify first.

    Copies: Windows cannot remove a file while its memory is mapped.
    """
    file = path / f"{stem}.safetensors"
    return {name: tensor.clone() for name, tensor in load_file(file).items()} if file.exists() else {}


def read_state(path: Path) -> dict[str, Any]:
    """What state.json of a checkpoint says. Verify first."""
    return json.loads((path / "state.json").read_text(encoding="utf-8"))


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers by name, tied ones once under their first name, each with its own memory,
    on the CPU. Of a model with updates of low rank around it, what is trained: the rest is the model it began
    with, which is on disk already.
    """
    named: dict[str, Tensor] = {}
    seen: set[tuple[int, int, torch.Size, tuple[int, ...]]] = set()
    storages: set[int] = set()
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    elsewhere = frozen if attached(model) else set()
    for name, tensor in model.state_dict().items():
        storage = tensor.untyped_storage().data_ptr()
        key = (storage, tensor.storage_offset(), tensor.shape, tensor.stride())
        if name in elsewhere or (key in seen and tensor.numel()):
            continue
        own = tensor.detach().cpu().contiguous()
        named[name] = own.clone() if storage in storages else own
        seen.add(key)
        storages.add(storage)
    return named


@torch.no_grad()
def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy what `weights` gave back into the model, in place.

    DataError, naming `source` and the tensor, if names or shapes differ.
    """
    there, own = weights(model), model.state_dict()
    for name in sorted(set(there) ^ set(tensors)):
        which = "is missing" if name in there else "is not a weight of this model"
        raise DataError(f"{source}: {name!r} {which}", "resume with the model that the run began with")
    for name, tensor in tensors.items():
        if own[name].shape != tensor.shape:
            shapes = f"{list(tensor.shape)}; the model's has {list(own[name].shape)}"
            raise DataError(f"{source}: {name!r} has shape {shapes}", "resume with the model that the run began with")
        own[name].copy_(tensor)
