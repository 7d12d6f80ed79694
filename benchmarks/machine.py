"""What this machine can do at most, measured in the same minutes as everything else. In a process of its own: `limits()`.

* A matrix product of n × n × n counts 2·n³ operations; the best of many, at the best of three sizes, in float32 (as torch comes),
  bfloat16 and int8 (int32 sums).
* Memory: the bytes of an array far larger than the caches, read once to be summed, over the seconds of the fastest time.
"""

import platform
import sys
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

from benchmarks.worker import Worker, serve

SIZES = (1024, 1536, 2048)
PACKAGES = ("torch", "transformers", "tokenizers", "ctranslate2", "litgpt", "x-transformers", "llama-cpp-python")
PACKAGES += ("tiktoken", "gigatoken", "fastokens", "rustbpe", "sentencepiece", "gensim")


def limits(quick: bool = False) -> dict[str, float]:
    """{"float32", "bfloat16": GFLOP/s, "int8": GOP/s, "memory": GB/s read}, with as many threads as everything else has."""
    with Worker("benchmarks.machine", settings={"seconds": 0.05 if quick else 0.6}) as worker:
        return {} if worker.skipped else worker.ask({"do": "limits"})


def machine(python: str = "") -> dict[str, Any]:
    """Processor, threads and versions of ours and, with the Python of the peers, of theirs."""
    with Worker("benchmarks.machine") as worker:
        told = {"skipped": worker.skipped} if worker.skipped else worker.ask({"do": "machine"})
    if python:
        with Worker("benchmarks.machine", python) as worker:
            told["peers"] = worker.skipped or worker.ask({"do": "machine"})["versions"]
    return told


def here() -> dict[str, Any]:
    """Of this process."""
    import torch

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    best = torch.backends.cpu.get_cpu_capability()
    bf16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return {
        "processor": processor(),
        "vectors": best + (" with bf16" if bf16 else ""),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "versions": versions,
    }


def processor() -> str:
    """Its name, as the system tells it."""
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        return f"{len(names)} × {names[0]}" if names else platform.machine()
    return platform.processor() or platform.machine()


def measure(seconds: float) -> dict[str, float]:
    """The limits, about `seconds` for each number."""
    import torch

    found = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16), ("int8", torch.int8)):
        rates = []
        for n in SIZES:
            a, b = torch.ones(n, n, dtype=dtype), torch.ones(n, n, dtype=dtype)
            product = torch._int_mm if dtype == torch.int8 else torch.matmul
            try:
                rates.append(2 * n**3 / best(lambda a=a, b=b, product=product: product(a, b), seconds / len(SIZES)))
            except RuntimeError:  # no such product on this processor
                break
        found[name] = round(max(rates, default=0.0) / 1e9, 1)
    large = torch.ones(1 << 27)
    found["memory"] = round(large.numel() * 4 / best(large.sum, seconds) / 1e9, 1)
    return found


def best(work: Callable[[], object], seconds: float) -> float:
    """The shortest time `work` takes, looked for during `seconds`, twice at least."""
    work()
    shortest, begin, n = float("inf"), time.perf_counter(), 0
    while n < 2 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        work()
        shortest, n = min(shortest, time.perf_counter() - start), n + 1
    return shortest


def start(settings: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """What `serve` needs."""
    return {}, lambda request: here() if request["do"] == "machine" else measure(settings["seconds"])


if __name__ == "__main__":
    serve(start)
