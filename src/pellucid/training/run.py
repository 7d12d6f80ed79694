"""A run: a recipe put together (tokenizer, data, model, task, machine) and given to the loop. Begun and resumed."""

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pellucid.data.files import fingerprint
from pellucid.errors import DataError, UserError
from pellucid.generation.options import to_folder
from pellucid.models import adapters, hub, storage
from pellucid.models.build import count
from pellucid.parts.lora import merge
from pellucid.tasks import metrics
from pellucid.training import compiled, devices, facts, loop, ranks
from pellucid.training.contracts import Data, Outcome, Run
from pellucid.training.fits import Fit, prepare
from pellucid.training.kinds import kind_of
from pellucid.training.log import Log
from pellucid.training.recipe import Recipe, dump, load_recipe, to_toml

FORMAT = 1
"""Of run.json; raised when an older reader could not go on with a newer run."""


def start(recipe: Recipe, folder: Path, name: str = "") -> Outcome:
    """Trains `recipe` in a new folder. Whatever is wrong with recipe or data is raised (UserError, DataError) before the folder is made."""
    check(recipe)
    fit = prepare(recipe, None)
    folder.mkdir(parents=True, exist_ok=True)
    if recipe.init:  # the shape is that model's: what is written down is what there is
        recipe = replace(recipe, model=replace(fit.config, head="words", labels=(), n_labels=0))
    dump(recipe, folder / "run.toml")
    fit.notes += facts.missing(recipe)
    return train(recipe, folder, fit, name)


def resume(folder: Path) -> Outcome:
    """Goes on with a run exactly where it stopped. Raises DataError when the data it learned from has changed."""
    recipe = load_recipe(folder / "run.toml")
    return train(recipe, folder, prepare(recipe, folder), folder.name)


def check(recipe: Recipe) -> None:
    """Raises UserError for what cannot work together, before any work is done."""
    kind, metric = kind_of(recipe), recipe.training.metric
    if recipe.model.family not in kind.families:
        raise UserError(
            f"the task {recipe.task!r} needs model.family = {' or '.join(map(repr, kind.families))}, not {recipe.model.family!r}"
        )
    if recipe.data.kind not in kind.reads:
        raise UserError(
            f"the task {recipe.task!r} cannot learn from data.kind = {recipe.data.kind!r}",
            "it reads " + ", ".join(kind.reads),
        )
    if metric not in kind.metrics:
        raise UserError(
            f"training.metric = {metric!r} is not for the task {recipe.task!r}", "it knows " + ", ".join(kind.metrics)
        )
    if recipe.training.class_weight == "balanced" and kind.head == "words":
        raise UserError("training.class_weight is for labels and tags")
    if metric in ("bleu", "chrf") and not metrics.has_bleu():
        raise UserError(f"training.metric = {metric!r} needs the package sacrebleu", "pip install 'pellucid[bleu]'")
    if recipe.training.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("training.tensorboard needs the package tensorboard", "pip install 'pellucid[tensorboard]'")
    if recipe.model.family == "vit" and recipe.model.image_size % recipe.model.patch_size:
        sizes = f"model.image_size {recipe.model.image_size} is not a multiple of model.patch_size {recipe.model.patch_size}"
        raise UserError(sizes, "the pixels beyond the last patch would never be seen")
    check_lora(recipe)
    devices.find(recipe.training.device)
    count(replace(recipe.model, vocab_size=1, pad_id=None))  # sizes that do not fit together are said now


def check_lora(recipe: Recipe) -> None:
    """Raises UserError for updates of low rank without a model to begin with, or with what they settle themselves."""
    if not recipe.lora.rank:
        return
    if not recipe.init:
        raise UserError("lora.rank needs a model that is there already", "name it: --init MODEL; or --lora.rank 0")
    if not recipe.lora.merge and adapters.is_adapter(hub.find(recipe.init)):
        raise UserError(f"{recipe.init} is an adapter, and none is put on top of another", "lora.merge = true")
    if recipe.training.freeze:
        raise UserError(
            "training.freeze and lora.rank exclude each other", "lora freezes all but its own and new parts"
        )


def train(recipe: Recipe, folder: Path, fit: Fit, name: str) -> Outcome:
    """Gives everything to the loop; the weights to keep become `model/`."""
    devices.keep_freed_memory()
    (folder / "model").mkdir(parents=True, exist_ok=True)
    if fit.tokenizer:
        fit.tokenizer.save(folder / "model" / "tokenizer.json")
    model = fit.model
    record = _record(recipe, folder, fit, model, name)
    choices = devices.Choices.from_dict(record["choices"])
    t, n_parameters = recipe.training, sum(p.numel() for p in model.parameters())
    unit = kind_of(recipe).unit
    log = Log(folder, t.steps, _flops_per_target(model, fit), choices.peak_flops, t.tensorboard, unit=unit)
    for note in fit.notes:
        log.note(note)
    where = (
        f"{choices.device}, {choices.precision}, {choices.threads} threads{', compiled' if choices.compiled else ''}"
    )
    knows = f"vocabulary {fit.config.vocab_size:,}, " if fit.tokenizer else ""
    knows += f"{fit.config.n_labels} labels, " if fit.config.n_labels else ""
    log.note(f"{n_parameters:,} parameters, {knows}{where} -> {folder}")
    run = Run(
        model,
        fit.task,
        fit.data,
        t,
        folder,
        recipe.seed,
        choices,
        log,
        {"run.toml": to_toml(recipe), "config.json": json.dumps(asdict(fit.config), indent=1)},
    )
    return loop.train(run, lambda best, judged: keep(best, recipe, folder, fit, judged))


def keep(model: nn.Module, recipe: Recipe, folder: Path, fit: Fit, judged: Mapping[str, float]) -> None:
    """What a run is for: the whole model with its card, or the updates that it has learnt as an adapter."""
    if recipe.lora.rank and not recipe.lora.merge:
        told = facts.told(recipe, fit, folder, judged)
        adapters.save(model, folder / "model", recipe.init, fit.tokenizer, told, fit.begun)
        return
    whole = merge(model)
    speaks = to_folder(fit.config, recipe.generation, hub.find(recipe.init) if recipe.init else None)
    storage.save(whole, folder / "model", fit.tokenizer, facts.card(whole, recipe, fit, folder, judged), speaks)


def _record(recipe: Recipe, folder: Path, fit: Fit, model: nn.Module, name: str) -> dict[str, Any]:
    """run.json: written once, read on resume, so that a run goes on with what was decided when it began."""
    path, held_out = folder / "run.json", fingerprint(recipe.data.valid) if recipe.data.valid else ""
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise DataError(
                f"{path}: format {record['format']}, this version reads {FORMAT}", "use the version that wrote it"
            )
        if record["tokenizer"] != (fit.tokenizer.hash() if fit.tokenizer else ""):
            raise DataError(f"{folder}/model/tokenizer.json has changed since the run began", "put the old one back")
        if record["data"] != _fingerprint(recipe, fit.data):
            raise DataError(
                "the training data has changed since the run began", "put the old data back, or start a new run"
            )
        if record.get("held_out", held_out) != held_out:
            raise DataError(
                "the data.valid files have changed since the run began", "put the old ones back, or start a new run"
            )
        if fit.begun and record.get("begun") != fit.begun:
            raise DataError(f"{recipe.init} has changed since the run began with it", "put the old model back")
        return record
    device = devices.find(recipe.training.device)
    model.to(device)

    def loss(i: int, quick: bool = False) -> torch.Tensor:
        batch = fit.data.batch(i)
        part = ranks.rows(batch, 0, ranks.world() * recipe.training.accumulate)  # so many as training has at a time
        micro = {name: rows.to(device) for name, rows in part.items()}
        return compiled.program(fit.task.loss, quick)(model, micro) / fit.task.count(batch)

    t = recipe.training
    choices = devices.choose(t, model, loss)
    fixed = compiled.one_shape(fit.data.batch, ranks.world() * t.accumulate)
    record = {
        "format": FORMAT,
        "recipe": name,
        "seed": recipe.seed,
        "model": asdict(fit.config),
        "tokenizer": fit.tokenizer.hash() if fit.tokenizer else "",
        "data": _fingerprint(recipe, fit.data),
        "held_out": held_out,
        "begun": fit.begun,
        "choices": compiled.decide(t, choices, model, loss, fixed).to_dict(),
        **facts.here(),
        "command": sys.argv[1:],
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(temporary, path)
    return record


def _fingerprint(recipe: Recipe, data: Data) -> str:
    """Of the training files and two batches: other data, another order or another tokenizer gives another one."""
    digest = hashlib.sha256(fingerprint(recipe.data.train).encode() if recipe.data.train else b"")
    for step in (0, 1000):
        for name, tensor in sorted(data.batch(step).items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def _flops_per_target(model: nn.Module, fit: Fit) -> float:
    """Forward and backward, per target: six for each parameter and each place of the batch that meets it (Kaplan et al. 2020, section 2.1);
    places are tokens or patches, and only targets meet the vocabulary."""
    batch, config = fit.data.batch(0), fit.config
    targets = fit.task.count(batch)
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    table = config.vocab_size * config.stack.d_model * (config.head == "words")
    if "source_keep" in batch:
        return 6 * (sizes["decoder"] + table + sizes["encoder"] * int(batch["source_keep"].sum()) / targets)
    places = (
        batch["images"].shape[0] * (config.image_size // config.patch_size) ** 2
        if "images" in batch
        else batch["ids"].numel()
    )
    return 6 * (sizes["stack"] * places / targets + table)
