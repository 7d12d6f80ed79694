"""A model folder: config.json, model.safetensors, tokenizer.json, in the layout of Hugging Face.

A model whose shape a foreign family has is written under that family's names, so `transformers` loads it without this library;
another keeps our names and its config.json and model card say so. What stands beside the two is made by `foreign_files`. Names and
shapes are checked against the config before anything is allocated.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pellucid.errors import DataError, did_you_mean
from pellucid.models.build import FAMILIES
from pellucid.models.config import ModelConfig
from pellucid.models.foreign_files import card_of, label_names, preprocessor, tokenizer_config, with_edges
from pellucid.models.pretrained import gpt2, llama
from pellucid.models.pretrained.mapping import shapes_of_theirs, to_ours, to_theirs
from pellucid.records import from_dict
from pellucid.text.tokenizer import Tokenizer

FOREIGN: dict[str, ModuleType] = {family.MODEL_TYPE: family for family in (llama, gpt2)}
OWN_PREFIX = "pellucid-"


def save(model: nn.Module, folder: Path, tokenizer: Tokenizer | None = None, card: str = "") -> None:
    """Writes the folder: each file aside first, then all moved into place, the weights last. What else is in the folder stays, a model card
    too unless `card` is given. Weights are saved in float32, tied ones once."""
    folder = folder.resolve()
    aside = folder.with_name(f".{folder.name}-new")
    shutil.rmtree(aside, ignore_errors=True)
    _write_folder(model, aside, tokenizer, card)
    folder.mkdir(parents=True, exist_ok=True)
    if not card and (folder / "README.md").exists():
        (aside / "README.md").unlink()
    for path in sorted(aside.iterdir(), key=lambda path: path.name == "model.safetensors"):
        os.replace(path, folder / path.name)
    aside.rmdir()


def _write_folder(model: nn.Module, folder: Path, tokenizer: Tokenizer | None, card: str) -> None:
    folder.mkdir(parents=True)
    config: ModelConfig = model.config  # type: ignore[assignment]
    family = next((f for f in FOREIGN.values() if f.fits(config)), None)
    tensors = {name: p.detach().float().cpu().contiguous() for name, p in model.named_parameters()}
    tensors = to_theirs(family.rows(config), tensors) if family else tensors
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    ids = {f"{name}_token_id": getattr(config, f"{name}_id") for name in ("pad", "bos", "eos")}
    _write(folder / "config.json", _config_json(config, family) | label_names(config) | ids)
    _write(folder / "generation_config.json", ids)
    if tokenizer is not None:
        with_edges(tokenizer, config).save(folder / "tokenizer.json")
        _write(folder / "tokenizer_config.json", tokenizer_config(tokenizer, config))
    if config.family == "vit":
        _write(folder / "preprocessor_config.json", preprocessor(config))
    told = card or card_of(config, family.ARCHITECTURE if family else "", tokenizer)
    (folder / "README.md").write_text(told, encoding="utf-8")


def load(folder: Path, dtype: torch.dtype | None = None, device: str = "cpu") -> tuple[nn.Module, Tokenizer | None]:
    """The model, in evaluation mode, and its tokenizer if the folder has one.

    Raises DataError naming the file and what is missing, unexpected, misshapen or not understood.
    """
    config, family = read_config(folder / "config.json")
    with torch.device("meta"):
        model = FAMILIES[config.family][0](config)
    shapes = {name: p.shape for name, p in model.named_parameters()}
    rows = family.rows(config) if family else None
    tidy = partial(family.tidy, c=config) if family else None
    expected = shapes_of_theirs(rows, shapes) if rows else {name: tuple(shape) for name, shape in shapes.items()}
    tensors = _read_tensors(folder / "model.safetensors", expected, tidy, dtype, device)
    _put(model, to_ours(rows, tensors, shapes) if rows else tensors)
    has_tokenizer = any((folder / name).exists() for name in ("tokenizer.json", "vocab.json")) or any(
        folder.glob("tok*.bin")
    )
    tokenizer = Tokenizer.load(folder) if has_tokenizer else None
    if tokenizer is not None and tokenizer.vocab_size > config.vocab_size:
        sizes = f"the tokenizer knows {tokenizer.vocab_size} tokens, the model {config.vocab_size}"
        raise DataError(f"{folder}: {sizes}", "the tokenizer belongs to another model")
    return model.eval(), tokenizer


def assemble(config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> nn.Module:
    """A model of ours from its config as a dictionary and its tensors under our names."""
    record = from_dict(ModelConfig, config, where)
    with torch.device("meta"):
        model = FAMILIES[record.family][0](record)
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
    _compare(Path(where), expected, {name: tuple(t.shape) for name, t in tensors.items()})
    _put(model, tensors)
    return model


def _put(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Makes these tensors the parameters; names are known to be complete, and a shared part goes by its first name."""
    model.load_state_dict(dict(tensors), assign=True, strict=False)


def _config_json(config: ModelConfig, family: ModuleType | None) -> dict[str, Any]:
    if family:
        common = {
            "architectures": [family.ARCHITECTURE],
            "model_type": family.MODEL_TYPE,
            "vocab_size": config.vocab_size,
        }
        return common | family.from_config(config) | {"dtype": "float32"}
    ours = FAMILIES[config.family][0].__name__
    return {"architectures": [ours], "model_type": OWN_PREFIX + config.family, "pellucid": dataclasses.asdict(config)}


def read_config(path: Path) -> tuple[ModelConfig, ModuleType | None]:
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{path.parent} is no model folder: it has no config.json", "give a run folder or a model folder"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged: {error}", "copy the model again") from None
    kind = theirs.get("model_type", "") if isinstance(theirs, dict) else ""
    if str(kind).startswith(OWN_PREFIX):
        return from_dict(ModelConfig, theirs["pellucid"], str(path)), None
    if kind not in FOREIGN:
        known = [*FOREIGN, *(OWN_PREFIX + name for name in FAMILIES)]
        raise DataError(f"{path}: models of type {kind!r} cannot be read yet", did_you_mean(str(kind), known))
    try:
        return FOREIGN[kind].to_config(theirs), FOREIGN[kind]
    except KeyError as error:
        raise DataError(f"{path}: field {error} is missing", "copy the model again") from None


def _read_tensors(
    path: Path, expected: Mapping[str, tuple[int, ...]], tidy: Any, dtype: torch.dtype | None, device: str
) -> dict[str, Tensor]:
    """The tensors of a file under the names `expected` has, once all names and shapes are known to fit."""
    try:
        with safe_open(path, "pt", device=device) as file:
            names = {(tidy(name) if tidy else name): name for name in file.keys()}
            names.pop(None, None)
            found = {name: tuple(file.get_slice(theirs).get_shape()) for name, theirs in names.items()}
            _compare(path, expected, found)
            return {name: file.get_tensor(theirs).to(dtype) for name, theirs in names.items()}
    except FileNotFoundError:
        if (path.parent / "model.safetensors.index.json").exists():
            raise DataError(
                f"{path.parent}: weights in several files cannot be read yet", "merge them into one"
            ) from None
        raise DataError(f"{path} does not exist", "a model folder holds config.json and model.safetensors") from None
    except SafetensorError as error:
        raise DataError(f"{path} is damaged: {error}", "copy or train the model again") from None


def _compare(path: Path, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    wrong = [f"missing: {name} {list(expected[name])}" for name in expected.keys() - found.keys()]
    wrong += [f"unexpected: {name} {list(found[name])}" for name in found.keys() - expected.keys()]
    wrong += [
        f"{name} has shape {list(found[name])}, config.json asks for {list(expected[name])}"
        for name in expected.keys() & found.keys()
        if expected[name] != found[name]
    ]
    if wrong:
        more = f"\n  … and {len(wrong) - 12} more" if len(wrong) > 12 else ""
        raise DataError(f"{path} does not fit its config.json:\n  " + "\n  ".join(sorted(wrong)[:12]) + more)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
