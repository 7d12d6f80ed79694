"""What a folder holds, opened: a model folder, a run that has ended, or one that is still under way."""

import json
from pathlib import Path

import torch
from torch import nn

from pellucid.errors import DataError
from pellucid.models import adapters, hub, storage
from pellucid.models.adapters import is_adapter
from pellucid.models.build import build
from pellucid.models.config import ModelConfig
from pellucid.parts.lora import merge
from pellucid.records import from_dict
from pellucid.text.tokenizer import Tokenizer
from pellucid.training import checkpoints
from pellucid.training.finetuning import begin, take_over
from pellucid.training.recipe import load_recipe


def open_model(
    folder: Path, dtype: torch.dtype | None = None, device: str = "cpu", mapped: bool = False
) -> tuple[nn.Module, Tokenizer | None]:
    """The model, in evaluation mode, and its tokenizer if there is one; of a run that has not ended, its newest checkpoint's. mapped: see
    `storage.load`.

    Raises DataError when there is no model, or a file is damaged.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder", hub.runs_here())
    if not (folder / "run.toml").is_file():
        return _adapted(folder, dtype, device) if is_adapter(folder) else storage.load(folder, dtype, device, mapped)
    if any((folder / "model" / name).exists() for name in ("model.safetensors", adapters.WEIGHTS)):
        return open_model(folder / "model", dtype, device, mapped)
    if not any((folder / "checkpoints").glob("step-*")):
        raise DataError(f"{folder} has no model yet", f"go on with it: pellucid resume {folder}")
    model, tokenizer = _under_way(folder), _tokenizer(folder / "model")
    return model.to(device=device, dtype=dtype).eval(), tokenizer


def _adapted(folder: Path, dtype: torch.dtype | None, device: str) -> tuple[nn.Module, Tokenizer | None]:
    """The model that an adapter belongs to, with the adapter in its weights."""
    adapter = adapters.read(folder)
    base = adapters.base_of(adapter)
    model, tokenizer = open_model(base)
    adapters.refuse_changed(adapter.own.get("begun", ""), model, base)
    theirs: ModelConfig = model.config  # type: ignore[assignment]
    config, new = adapters.config_of(adapter, lambda: theirs), tuple[str, ...]()
    if config != theirs:
        tensors = dict(model.named_parameters())
        model = build(config)
        new = take_over(model, tensors, theirs).new
    adapters.put_on(model, adapter, base, new)
    return merge(model).to(device=device, dtype=dtype).eval(), _tokenizer(folder) or tokenizer


def _under_way(folder: Path) -> nn.Module:
    """The model of a run's newest checkpoint."""
    newest = checkpoints.latest(folder / "checkpoints", lambda note: None)
    config = json.loads((newest / "config.json").read_text(encoding="utf-8"))
    averaged = checkpoints.read(newest, "ema") if (newest / "ema.safetensors").exists() else {}
    tensors = checkpoints.read(newest, "model") | averaged
    recipe = load_recipe(folder / "run.toml")
    if not recipe.lora.rank:
        return storage.assemble(config, tensors, str(newest))
    base, _ = open_model(hub.find(recipe.init))
    adapters.refuse_changed(storage.read_json(folder / "run.json").get("begun", ""), base, recipe.init)
    theirs: ModelConfig = base.config  # type: ignore[assignment]
    whole = from_dict(ModelConfig, config, str(newest))
    model, _ = begin(whole, recipe.seed, theirs, dict(base.named_parameters()), recipe.lora)
    checkpoints.load_weights(model, tensors, str(newest))
    return merge(model)


def _tokenizer(folder: Path) -> Tokenizer | None:
    return Tokenizer.load(folder) if (folder / "tokenizer.json").exists() else None
