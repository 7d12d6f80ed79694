"""A run: a recipe put together (tokenizer, data, model, task, machine) and given to the loop. Begun and resumed."""

import hashlib
import importlib.util
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pellucid
from pellucid.data.files import fingerprint
from pellucid.data.pairs import PairData
from pellucid.data.prepare import prepare_pairs, prepare_text, texts_for_tokenizer
from pellucid.data.text import TextData
from pellucid.errors import DataError, UserError
from pellucid.models import storage
from pellucid.models.build import build, count
from pellucid.models.config import ModelConfig
from pellucid.tasks import metrics
from pellucid.tasks.language import LanguageModel
from pellucid.tasks.translation import Held, Translation
from pellucid.text import tokenizer as text
from pellucid.training import devices, loop
from pellucid.training.contracts import Data, Outcome, Run, Task
from pellucid.training.log import Log
from pellucid.training.recipe import Recipe, dump, load_recipe, to_toml

FORMAT = 1
"""Of run.json; raised when an older reader could not go on with a newer run."""


def start(recipe: Recipe, folder: Path, name: str = "") -> Outcome:
    """Trains `recipe` in a new folder. Whatever is wrong with recipe or data is raised (UserError, DataError) before the folder is made."""
    check(recipe)
    fit = prepare(recipe, None)
    folder.mkdir(parents=True, exist_ok=True)
    dump(recipe, folder / "run.toml")
    return train(recipe, folder, fit, name)


def resume(folder: Path) -> Outcome:
    """Goes on with a run exactly where it stopped. Raises DataError when the data it learned from has changed."""
    recipe = load_recipe(folder / "run.toml")
    return train(recipe, folder, prepare(recipe, folder), folder.name)


def check(recipe: Recipe) -> None:
    """Raises UserError for what cannot work together, before any work is done."""
    wanted = {"translate": "seq2seq", "language-model": "gpt"}[recipe.task]
    if recipe.model.family != wanted:
        raise UserError(f"the task {recipe.task!r} needs model.family = {wanted!r}, not {recipe.model.family!r}")
    if (recipe.data.kind == "text") != (recipe.task == "language-model"):
        raise UserError(f"the task {recipe.task!r} cannot learn from data.kind = {recipe.data.kind!r}")
    metric = recipe.training.metric
    if recipe.task == "language-model" and metric != "loss":
        raise UserError(f"training.metric = {metric!r} is for translations", "use metric = 'loss'")
    if metric in ("bleu", "chrf") and not metrics.has_bleu():
        raise UserError(f"training.metric = {metric!r} needs the package sacrebleu", "pip install 'pellucid[bleu]'")
    if recipe.training.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("training.tensorboard needs the package tensorboard", "pip install 'pellucid[tensorboard]'")
    devices.find(recipe.training.device)
    count(replace(recipe.model, vocab_size=1, pad_id=None))  # sizes that do not fit together are said now


@dataclass
class Fit:
    """What a recipe becomes: everything the loop needs but the machine."""

    tokenizer: text.Tokenizer
    config: ModelConfig
    task: Task
    data: Data
    notes: list[str]


def prepare(recipe: Recipe, folder: Path | None) -> Fit:
    """Tokenizer (the run's own, if `folder` has one already), tokens on disk, task. Raises DataError for unusable data."""
    own = folder / "model" / "tokenizer.json" if folder else None
    if own and own.exists():
        tokenizer = text.Tokenizer.load(own)
    else:
        texts = texts_for_tokenizer(recipe.data, recipe.seed)
        tokenizer = text.train(texts, recipe.data.tokenizer, recipe.data.vocab_size, recipe.data.lowercase)
    ids = {f"{name}_id": getattr(tokenizer, f"{name}_id") for name in ("pad", "bos", "eos")}
    if recipe.task == "language-model":
        ids["bos_id"] = ids["eos_id"]  # what stands between texts is also what a new text starts from, as in GPT-2
    if 0 < recipe.model.vocab_size < tokenizer.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, model.vocab_size is {recipe.model.vocab_size}",
            "leave model.vocab_size out, or lower data.vocab_size",
        )
    config = replace(recipe.model, vocab_size=recipe.model.vocab_size or tokenizer.vocab_size, **ids)
    task, data, notes = {"translate": _pairs, "language-model": _text}[recipe.task](recipe, tokenizer, config)
    return Fit(tokenizer, config, task, data, notes)


def _pairs(recipe: Recipe, tokenizer: text.Tokenizer, config: ModelConfig) -> tuple[Task, Data, list[str]]:
    parts, t = prepare_pairs(recipe.data, tokenizer, recipe.seed), recipe.training
    valid = parts.get("valid") or parts["train"]
    held = Held(valid.examples(t.evaluate_limit or None), valid.sources, valid.targets).first(t.evaluate_limit)
    n_held, held = len(held.examples), held.within(config.max_length)
    if not held.examples:
        raise DataError(f"every held-out pair is longer than the model's {config.max_length} positions")
    data = PairData(
        parts["train"].sources,
        parts["train"].targets,
        pad_id=config.pad_id or 0,
        bos_id=config.bos_id or 0,
        eos_id=config.eos_id or 0,
        batch_tokens=t.batch_tokens,
        seed=recipe.seed,
        max_length=config.max_length,
    )
    task = Translation(held, tokenizer, recipe.generation, t.metric, t.label_smoothing)
    notes = [note for part in parts.values() for note in part.notes] + data.notes
    if len(held.examples) < n_held:
        notes.append(f"{n_held - len(held.examples)} of {n_held} held-out pairs left out: longer than the model")
    return task, data, notes


def _text(recipe: Recipe, tokenizer: text.Tokenizer, config: ModelConfig) -> tuple[Task, Data, list[str]]:
    parts, t = prepare_text(recipe.data, tokenizer), recipe.training
    if t.length > config.max_length:
        raise UserError(
            f"training.length {t.length} is more than the model's {config.max_length} tokens",
            f"--training.length {config.max_length} or --model.max-length {t.length}",
        )
    valid = parts.get("valid") or parts["train"]
    held = TextData(valid.tokens, t.length, t.batch_size)
    task = LanguageModel(
        held,
        valid.n_bytes / len(valid.tokens),
        tokenizer,
        recipe.generation,
        t.evaluate_limit or None,
        t.label_smoothing,
    )
    data = TextData(parts["train"].tokens, t.length, t.batch_size, recipe.seed)
    return task, data, [note for part in parts.values() for note in part.notes]


def train(recipe: Recipe, folder: Path, fit: Fit, name: str) -> Outcome:
    """Gives everything to the loop; the weights to keep become `model/`."""
    devices.keep_freed_memory()
    (folder / "model").mkdir(parents=True, exist_ok=True)
    fit.tokenizer.save(folder / "model" / "tokenizer.json")
    model = build(fit.config, recipe.seed)
    record = _record(recipe, folder, fit, model, name)
    choices = devices.Choices.from_dict(record["choices"])
    t, n_parameters = recipe.training, sum(p.numel() for p in model.parameters())
    log = Log(folder, t.steps, _flops_per_token(model, fit), choices.peak_flops, t.tensorboard)
    for note in fit.notes:
        log.note(note)
    where = f"{choices.device}, {choices.precision}, {choices.threads} threads"
    log.note(f"{n_parameters:,} parameters, vocabulary {fit.config.vocab_size:,}, {where} -> {folder}")
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
    return loop.train(run, lambda best, judged: storage.save(best, folder / "model", fit.tokenizer))


def _record(recipe: Recipe, folder: Path, fit: Fit, model: nn.Module, name: str) -> dict[str, Any]:
    """run.json: written once, read on resume, so that a run goes on with what was decided when it began."""
    path = folder / "run.json"
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise DataError(
                f"{path}: format {record['format']}, this version reads {FORMAT}", "use the version that wrote it"
            )
        if record["tokenizer"] != fit.tokenizer.hash():
            raise DataError(f"{folder}/model/tokenizer.json has changed since the run began", "put the old one back")
        if record["data"] != _fingerprint(recipe, fit.data):
            raise DataError(
                "the training data has changed since the run began", "put the old data back, or start a new run"
            )
        return record
    device = devices.find(recipe.training.device)
    model.to(device)

    def loss(i: int) -> torch.Tensor:
        batch = {name: tensor.to(device) for name, tensor in fit.data.batch(i).items()}
        return fit.task.loss(model, batch) / fit.task.count(batch)

    record = {
        "format": FORMAT,
        "recipe": name,
        "seed": recipe.seed,
        "model": asdict(fit.config),
        "tokenizer": fit.tokenizer.hash(),
        "data": _fingerprint(recipe, fit.data),
        "choices": devices.choose(recipe.training, model, loss).to_dict(),
        "versions": {"pellucid": pellucid.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": {"system": platform.platform(), "processor": platform.processor(), "cores": os.cpu_count()},
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


def _flops_per_token(model: nn.Module, fit: Fit) -> float:
    """Forward and backward, per target: six per parameter a target meets, sources counted with their targets (Kaplan et al. 2020)."""
    batch = fit.data.batch(0)
    targets = fit.task.count(batch)
    sources = int(batch["source_keep"].sum()) if "source_keep" in batch else 0
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    table = fit.config.vocab_size * fit.config.stack.d_model
    decoder = sizes.get("decoder", 0) or sizes.get("stack", 0)
    return 6 * (decoder + table + sizes.get("encoder", 0) * sources / targets)
