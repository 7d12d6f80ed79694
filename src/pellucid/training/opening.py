"""What a folder holds, opened: a model folder, a run that has ended, or one that is still under way."""

import json
from pathlib import Path

import torch
from torch import nn

from pellucid.errors import DataError
from pellucid.models import storage
from pellucid.text.tokenizer import Tokenizer
from pellucid.training import checkpoints


def open_model(
    folder: Path, dtype: torch.dtype | None = None, device: str = "cpu"
) -> tuple[nn.Module, Tokenizer | None]:
    """The model, in evaluation mode, and its tokenizer if there is one; of a run that has not ended, its newest checkpoint's.

    Raises DataError when there is no model, or a file is damaged.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder", _runs_here())
    if not (folder / "run.toml").is_file():
        return storage.load(folder, dtype, device)
    if (folder / "model" / "model.safetensors").exists():
        return storage.load(folder / "model", dtype, device)
    if not any((folder / "checkpoints").glob("step-*")):
        raise DataError(f"{folder} has no model yet", f"go on with it: pellucid resume {folder}")
    newest = checkpoints.latest(folder / "checkpoints", lambda note: None)
    config = json.loads((newest / "config.json").read_text(encoding="utf-8"))
    averaged = checkpoints.read(newest, "ema") if (newest / "ema.safetensors").exists() else {}
    model = storage.assemble(config, checkpoints.read(newest, "model") | averaged, str(newest))
    has_tokenizer = (folder / "model" / "tokenizer.json").exists()
    tokenizer = Tokenizer.load(folder / "model") if has_tokenizer else None
    return model.to(device=device, dtype=dtype).eval(), tokenizer


def _runs_here() -> str:
    runs = sorted(str(path.parent) for path in Path("runs").glob("*/run.toml"))
    return "runs here: " + ", ".join(runs) if runs else "train one: pellucid train dates"
