"""What a run knows of the model it made, for the model card: from its recipe, run.json, its data and its last checkpoint, so that it is
true of a run that was stopped and resumed, too."""

import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pellucid
from pellucid.data.config import PYTHON
from pellucid.models import hub
from pellucid.models.card import Trained, card_of, is_edited
from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.families import home
from pellucid.training import checkpoints
from pellucid.training.config import TrainingConfig
from pellucid.training.fits import Fit
from pellucid.training.kinds import kind_of
from pellucid.training.log import clock
from pellucid.training.recipe import Recipe

ASKED = "the model card will warn that no {missing} is stated: --card.license, --card.data, or [card] in the recipe"


def here() -> dict[str, Any]:
    """The versions and the machine of this process, for run.json."""
    machine = {"system": platform.platform(), "processor": platform.processor(), "cores": os.cpu_count()}
    if torch.cuda.is_available():
        machine["accelerator"] = torch.cuda.get_device_name()
    versions = {"pellucid": pellucid.__version__, "torch": torch.__version__, "python": platform.python_version()}
    return {"versions": versions, "machine": machine}


def missing(recipe: Recipe) -> list[str]:
    """What a person should be told when a run begins, nothing where the card will be complete."""
    needs = {"licence": recipe.card.license, "source of the data": recipe.card.data}
    lacking = " and no ".join(name for name, said in needs.items() if not said)
    return [ASKED.format(missing=lacking)] if lacking else []


def card(model: nn.Module, recipe: Recipe, fit: Fit, folder: Path, metrics: Mapping[str, float]) -> str:
    """README.md of the model that a run in `folder` has made; "" where somebody has written it: then it stays. metrics: of the weights
    that are kept."""
    if is_edited(folder / "model" / "README.md"):
        return ""
    config: ModelConfig = model.config  # type: ignore[assignment]
    family, strays = home(config)
    facts = replace(told(recipe, fit, folder, metrics), parameters=sum(p.numel() for p in model.parameters()))
    return card_of(config, family.architecture(config) if family else "", fit.tokenizer, strays, facts)


def told(recipe: Recipe, fit: Fit, folder: Path, metrics: Mapping[str, float]) -> Trained:
    """The facts of a run that has ended."""
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    steps = checkpoints.all_steps(folder / "checkpoints")
    state = checkpoints.read_state(steps[max(steps)])
    ours = not recipe.init or hub.is_path(recipe.init)
    return Trained(
        name=record["recipe"] or recipe.task,
        license=recipe.card.license,
        said=recipe.card.data,
        language=recipe.card.language,
        begun_with=_name(recipe.init),
        base="" if ours else recipe.init.partition("@")[0],
        data=_data(recipe, fit.parts),
        training=_training(recipe, record, state),
        metrics={name: value for name, value in metrics.items() if abs(value) < float("inf")},
        split=_split(recipe, fit.parts),
        dataset=recipe.data.kind,
        epilogue=_chosen(recipe.training, state, metrics, "valid" in fit.parts),
    )


def _data(recipe: Recipe, parts: Mapping[str, Any]) -> dict[str, str]:
    d = recipe.data
    files = {part: ", ".join(map(_name, getattr(d, part))) for part in ("train", "valid", "test")}
    made = d.kind if any(files.values()) else f"{d.kind}, made by Pellucid from the seed {recipe.seed}"
    rows = {"kind": made} | {f"files of {part}" if part != "train" else "files": names for part, names in files.items()}
    return rows | {part: _size(found) for part, found in parts.items()}


def _size(part: Any) -> str:
    """How much a part of the data holds, in the words of its kind."""
    if hasattr(part, "n_bytes"):
        return f"{len(part.tokens):,} tokens, {part.n_bytes:,} bytes"
    if hasattr(part, "sources"):
        n_tokens = len(part.sources.tokens) + len(part.targets.tokens)
        return f"{len(part.sources):,} pairs, {n_tokens:,} tokens"
    if hasattr(part, "pixels"):
        return f"{len(part.labels):,} images"
    rows = part.texts if hasattr(part, "texts") else part.ids
    return f"{len(rows):,} {'texts' if hasattr(part, 'texts') else 'sentences'}, {len(rows.tokens):,} tokens"


def _training(recipe: Recipe, record: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, str]:
    t, choices, unit = recipe.training, record["choices"], kind_of(recipe).unit
    early = " (ended early: nothing got better)" if state["ended"] == "early" else ""
    batch = {"text": f"{t.batch_size:,} × {t.length:,} tokens", "images": f"{t.batch_size:,} images"}
    second = f", inner matrices by Muon at {t.muon_lr or 4 * t.lr:g}" if t.optimizer == "muon" else ""
    rows = {
        "task": recipe.task,
        "steps": f"{state['step']:,} of {t.steps:,}{early}",
        "learned from": f"{state['tokens']:,} {unit}, each counted as often as it was seen",
        "batch": batch.get(recipe.data.kind, f"{t.batch_tokens:,} tokens"),
        "optimiser": f"AdamW at {t.lr:g}{second}",
        "schedule": f"{t.schedule}, {t.warmup:,} steps of warm-up",
        "seed": str(recipe.seed),
        "time": f"{clock(state['seconds'])}, evaluations and start-up aside",
        "precision": f"{choices['precision']}, {choices['device']}, {choices['threads']} threads",
    }
    if recipe.lora.rank:
        rows["updates"] = f"of rank {recipe.lora.rank} on {', '.join(recipe.lora.targets)}, merged into the weights"
    began = {"machine": _machine(record["machine"]), "versions": _versions(record["versions"])}
    now = {"machine": _machine(here()["machine"]), "versions": _versions(here()["versions"])}
    for name, value in began.items():
        rows[name] = value if now[name] == value else f"begun with {value}; ended with {now[name]}"
    return rows


def _machine(machine: Mapping[str, Any]) -> str:
    names = (machine.get("accelerator"), machine["processor"], f"{machine['cores']} cores", machine["system"])
    return ", ".join(filter(None, names))


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def _split(recipe: Recipe, parts: Mapping[str, Any]) -> str:
    if "valid" not in parts:
        return "the training data: nothing was held out"
    limit = recipe.training.evaluate_limit
    most = f" (at most {limit:,} {'windows' if recipe.data.kind == 'text' else 'examples'} of it)" if limit else ""
    return f"the held-out part `valid`{most}"


def _chosen(t: TrainingConfig, state: Mapping[str, Any], metrics: Mapping[str, float], held_out: bool) -> str:
    """How the weights were chosen, and what that does to the numbers."""
    if metrics == state["metrics"]:
        kept = f"The weights are those of step {state['best_step']:,}, the best by {t.metric.replace('_', ' ')}"
    else:
        kept = "The weights were chosen when training ended"
    average = f" of a running mean (decay {t.ema:g})" if t.ema else ""
    flattered = "; the same part chose them, so these numbers flatter a little" if held_out else ""
    return f"{kept}{average}{flattered}."


def _name(source: str) -> str:
    """A file or folder without the folders it lies in, which are nobody's business; an address or a name on the hub as it is."""
    public = source.startswith(PYTHON) or "://" in source or not hub.is_path(source)
    return source if public else re.split(r"[\\/]", source.rstrip("\\/"))[-1]
