"""`pellucid doctor`: what this machine has, what will be used, what is missing. Imports no torch until it starts."""

import importlib.util
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from pellucid import __version__
from pellucid.cli.arguments import Parser

EXTRAS = (
    ("sacrebleu", "bleu", "BLEU and chrF"),
    ("matplotlib", "plot", "pictures of a run"),
    ("PIL", "images", "reading image files"),
    ("pyarrow", "parquet", "reading .parquet files"),
    ("tensorboard", "tensorboard", "curves in TensorBoard"),
)
GIB = 1 << 30


def run(argv: list[str]) -> int:
    """Look, measure for about a second, print."""
    parser = Parser("doctor", "What this machine has, what will be used, what is missing.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse(argv)
    found = examine()
    print(json.dumps(found, ensure_ascii=False) if args.json else "\n".join(report(found)))
    return 0


def examine() -> dict[str, Any]:
    """Everything `doctor` knows, as JSON values; sizes in GiB, speeds in GFLOP/s."""
    import torch

    from pellucid.data.tokenised import cache_root

    measured = speeds()
    return {
        "pellucid": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "torch": torch.__version__,
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": memory(),
        "accelerator": accelerator(),
        "matmul_gflops": measured,
        "used": used(measured),
        "extras": {package: importlib.util.find_spec(package) is not None for package, _, _ in EXTRAS},
        "free_disk_gib": round(shutil.disk_usage(".").free / GIB, 1),
        "cache": str(cache_root()),
    }


def report(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    device = found["accelerator"]
    names = {"float32": "float32", "float32_onednn": "float32 through oneDNN", "bfloat16": "bfloat16"}
    speed = ", ".join(f"{names[name]} {value:,.0f}" for name, value in found["matmul_gflops"].items())
    rows = [
        ("pellucid", f"{found['pellucid']}, Python {found['python']}, torch {found['torch']}, {found['system']}"),
        ("processor", f"{found['cores']} cores; matrix product in GFLOP/s: {speed}"),
        ("memory", f"{found['memory_gib'] or '?'} GiB"),
        (
            "accelerator",
            f"{device['count']} × {device['kind']} {device['name']}" if device else "no CUDA or MPS device",
        ),
        ("disk", f"{found['free_disk_gib']} GiB free here; tokenised data is kept in {found['cache']}"),
    ]
    for package, extra, purpose in EXTRAS:
        state = "installed" if found["extras"][package] else f"missing: pip install 'pellucid[{extra}]'"
        rows.append((package, f"{purpose}: {state}"))
    rows += [("will be used", "")] + [(f"  {name.replace('_', ' ')}", value) for name, value in found["used"].items()]
    return [f"{name:20}{value}".rstrip() for name, value in rows]


def cores() -> int:
    """Cores this process may run on, a container's limit included."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = first_line("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        allowed = min(allowed, max(1, int(quota[0]) // int(quota[1])))
    return allowed


def memory() -> float | None:
    """GiB of memory, or of the container's share; None where the system does not say."""
    limit = first_line("/sys/fs/cgroup/memory.max")
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    return round((min(size, int(limit)) if limit.isdigit() else size) / GIB, 1)


def first_line(path: str) -> str:
    """A small file's first line, '' where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8").partition("\n")[0]
    except OSError:
        return ""


def accelerator() -> dict[str, Any] | None:
    """The first CUDA or MPS device: kind, name, how many, GiB of the first."""
    import torch

    if torch.cuda.is_available():
        about = torch.cuda.get_device_properties(0)
        size = round(about.total_memory / GIB, 1)
        return {"kind": "cuda", "name": about.name, "count": torch.cuda.device_count(), "memory_gib": size}
    if torch.backends.mps.is_available():
        return {"kind": "mps", "name": "Apple", "count": 1, "memory_gib": None}
    return None


def speeds() -> dict[str, float]:
    """GFLOP/s of a large matrix product, measured, as each precision would be used on the processor."""
    from pellucid.training.devices import measure_peak, onednn_is_exact, set_products

    found = {precision: measure_peak("cpu", precision) for precision in ("float32", "bfloat16")}
    if onednn_is_exact():
        set_products("onednn")
        found["float32_onednn"] = measure_peak("cpu", "float32")
        set_products("plain")
    return {name: round(flops / 1e9, 1) for name, flops in found.items()}


def used(measured: dict[str, float]) -> dict[str, str]:
    """What a run would take here, its recipe saying "auto". The precision it decides by timing its own steps."""
    import torch

    from pellucid.training.devices import bfloat16_is_native, find

    device = find("auto")
    native = bfloat16_is_native(device)
    products = "oneDNN" if "float32_onednn" in measured and device == "cpu" else "the usual library"
    return {
        "device": device,
        "threads": str(torch.get_num_threads()),
        "precision": "bfloat16 where a timed step is faster with it, else float32" if native else "float32",
        "float32_products": products,
    }
