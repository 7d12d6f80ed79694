"""What is written down when a loss is not finite: enough to look at the batch, and to run the very step
again.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from pellucid.errors import DataError
from pellucid.training import ranks


def stop(
    folder: Path, task: object, step: int, seed: int, batch: Mapping[str, Tensor], numbers: dict[str, Any]
) -> NoReturn:
    """Write blackbox.json (step, seed, numbers, the batch's ids, its texts if the task can `decode` it) and
    raise a DataError that names the batch.
    """
    record: dict[str, Any] = {"step": step, "seed": seed, "numbers": {k: repr(v) for k, v in numbers.items()}}
    if callable(decode := getattr(task, "decode", None)):
        record["texts"] = list(decode(batch))
    record["batch"] = {name: tensor.tolist() for name, tensor in batch.items()}
    path = folder / "blackbox.json"
    if ranks.rank() == 0:
        path.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    raise DataError(
        f"not finite at step {step}: " + ", ".join(f"{name} {value}" for name, value in numbers.items()),
        f"the batch of step {step} is written to {path}; no weight was changed. Look for broken examples in it,"
        " or lower training.lr, raise training.warmup, or set training.precision to float32",
    )
