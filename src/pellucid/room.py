"""How much memory there is: what this process holds, what it may hold, and how it does with less. Linux and its containers, macOS,
Windows, GPUs."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

V1_NO_LIMIT = 2**60
"""Version 1 of control groups says "no limit" by a number larger than any memory."""

KERNELS = 64
"""Compiled kernels that oneDNN, and PyTorch for it, keep: more than a step needs. Each holds some 200 KB, and by default both keep 1,024,
which a training with batches of ever new shapes fills with kernels that it never needs again."""


def keep_few_kernels() -> None:
    """Before the first product of this process: KERNELS are kept, unless the user's environment says otherwise."""
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(KERNELS))


def available(device: str, sharers: int = 1) -> int | None:
    """Bytes that each of so many processes may come to hold, what it has included; with swap, unless a container ends before it. None where
    the system does not say. Of a GPU: what a run may take there."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    left = torch.mps.recommended_max_memory() if device == "mps" else free()
    return None if left is None else left // sharers + resident()


def free() -> int | None:
    """Bytes of main memory that can still be had."""
    return SYSTEMS.get(sys.platform, _physical)()


def is_measured(device: str) -> bool:
    """Whether `available` tells what is free; elsewhere it is all that the machine has."""
    return device.startswith("cuda") or (device != "mps" and sys.platform in SYSTEMS)


def resident(field: str = "VmRSS", process: int | str = "self") -> int:
    """Bytes that a process holds now, or with "VmHWM" the most it ever held; 0 where the system does not say."""
    with suppress(OSError, ValueError):
        return _table(Path(f"/proc/{process}/status")).get(field, 0)
    return 0


def linux(root: Path = Path("/")) -> int | None:
    """MemAvailable (free, or given up by others when asked for) and SwapFree; less where a container has a limit."""
    try:
        table = _table(root / "proc/meminfo")
        free = table["MemAvailable"] + table.get("SwapFree", 0)
    except (OSError, ValueError, KeyError):
        return None
    return min([free, *_rooms(root)])


def _table(path: Path) -> dict[str, int]:
    """Lines `name: number kB` -> bytes; other lines are left out."""
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[2:] == ["kB"]}


def _rooms(root: Path) -> Iterator[int]:
    """What each control group of this process, from its own to the outermost, has left: its limit less what it holds, pages of files not
    counted: they are given up when memory is asked for, those looked at lately ("active") too."""
    for folder, limit, current, prefix in _groups(root):
        with suppress(OSError, ValueError):  # "max", or no file: no limit
            most = int((folder / limit).read_text(encoding="ascii"))
            if most < V1_NO_LIMIT:
                stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
                held = int((folder / current).read_text(encoding="ascii"))
                files = sum(int(stat.get(prefix + name, 0)) for name in ("inactive_file", "active_file"))
                yield max(0, most - held + files)


def _groups(root: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Folder of each group that counts memory, how its version calls limit and usage, and begins the names in memory.stat."""
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, kinds, name = line.split(":", 2)
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "")
            if "memory" in kinds.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
                base = base / "memory"
            elif kinds:
                continue
            own = base / name.strip("/")
            for folder in (own, *own.parents):
                if folder.is_relative_to(base):  # in a container the own name may be one that only the host knows
                    yield folder, *names


def _windows() -> int | None:
    """What may still be promised, with swap."""

    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)]
        _fields_ += [(f"n{i}", ctypes.c_ulonglong) for i in range(7)]  # memory: all, free; promises: all, free; …

    status = Status(length=ctypes.sizeof(Status))
    found = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined, unused-ignore]
    return int(status.n3) if found else None


def _physical() -> int | None:
    """All of the machine's memory, where nothing better is known: no more than this can fit."""
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


SYSTEMS = {"linux": linux, "win32": _windows}
"""Those that say what is free."""
