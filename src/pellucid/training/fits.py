"""What a recipe becomes: tokenizer, model, task and data; everything the loop needs but the machine. Whatever is wrong is said here."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pellucid import room
from pellucid.data.prepare import texts_for_tokenizer
from pellucid.errors import DataError, UserError
from pellucid.models import hub
from pellucid.models.adapters import hash_of
from pellucid.models.build import build
from pellucid.models.config import ModelConfig
from pellucid.progress import counted
from pellucid.records import from_dict
from pellucid.text.tokenizer import Tokenizer, train
from pellucid.training import finetuning
from pellucid.training.contracts import Data, Task
from pellucid.training.devices import Choices
from pellucid.training.kinds import Kind, kind_of
from pellucid.training.memory import check_weights, foresee
from pellucid.training.opening import open_model
from pellucid.training.recipe import Recipe
from pellucid.training.recompute import recompute


@dataclass
class Fit:
    """`notes`: what a person should be told; `begun`: a hash of the weights it begins with, "" where they are new; `parts`: of the data, by
    name."""

    tokenizer: Tokenizer | None
    model: nn.Module
    task: Task
    data: Data
    notes: list[str]
    begun: str = ""
    parts: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> ModelConfig:
        """Of the model."""
        return self.model.config  # type: ignore[return-value]


def prepare(recipe: Recipe, folder: Path | None) -> Fit:
    """Everything made ready; of a run that has begun in `folder`, its own tokenizer and config. The model to begin with is read until there
    is a checkpoint, and of updates of low rank always: their checkpoints hold only what is trained. Raises DataError for unusable data,
    UserError for what the recipe asks in vain."""
    room.keep_few_kernels()
    kind, config, tokenizer = kind_of(recipe), recipe.model, None
    notes: list[str] = []
    theirs: ModelConfig | None = None
    tensors: dict[str, Tensor] = {}
    if recipe.init and (recipe.lora.rank or not (folder and any((folder / "checkpoints").glob("step-*")))):
        theirs, tokenizer, tensors = begin_with(recipe)
        config = replace(theirs, labels=(), n_labels=0)
    record = _record(folder)
    config = from_dict(ModelConfig, record["model"], f"{folder}/run.json") if record else config
    if kind.unit != "images":
        tokenizer = _tokenizer(recipe, kind, folder, tokenizer, notes)
        config = _with_ids(recipe, config, tokenizer)
    parts = kind.parts(recipe, tokenizer, config)
    names = getattr(parts["train"], "names", ())
    config = replace(config, head=kind.head, labels=names, n_labels=len(names))
    data = kind.data(recipe, parts["train"], tokenizer, config)
    task = kind.task(recipe, parts.get("valid") or parts["train"], tokenizer, config)
    notes += [*(note for part in parts.values() for note in part.notes), *getattr(data, "notes", ())]
    notes += [] if "valid" in parts else ["nothing is held out: what is measured below is the training data"]
    t = replace(recipe.training, memory="warn") if folder else recipe.training  # what has begun is not refused
    if theirs is None:
        check_weights(config, t)
        model = build(config, recipe.seed)
    else:
        model, note = finetuning.begin(config, recipe.seed, theirs, tensors, recipe.lora)
        notes.append(f"begins with {recipe.init}: {note}")
    notes.append(finetuning.freeze(model, recipe.training.freeze))
    model = recompute(model) if recipe.training.recompute else model
    choices = Choices.from_dict(record["choices"]) if record else None
    notes.append(foresee(model, task, data, t, choices))
    return Fit(tokenizer, model, task, data, [note for note in notes if note], hash_of(tensors), parts)


def _record(folder: Path | None) -> dict[str, Any]:
    """What a run wrote down when it began; empty for a new one."""
    path = folder / "run.json" if folder else None
    return json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {}


def begin_with(recipe: Recipe) -> tuple[ModelConfig, Tokenizer | None, dict[str, Tensor]]:
    """The config, tokenizer and weights of the model that `recipe.init` names; dropout is the recipe's."""
    model, tokenizer = open_model(hub.find(recipe.init))
    theirs: ModelConfig = model.config  # type: ignore[assignment]
    if theirs.family != recipe.model.family:
        raise UserError(
            f"{recipe.init} is a {theirs.family}, the recipe asks for a {recipe.model.family}",
            "begin with a model of the same family",
        )
    config = replace(theirs, stack=replace(theirs.stack, dropout=recipe.model.stack.dropout))
    return config, tokenizer, {name: p.detach() for name, p in model.named_parameters()}


def _tokenizer(recipe: Recipe, kind: Kind, folder: Path | None, given: Tokenizer | None, notes: list[str]) -> Tokenizer:
    """The run's own, the one of the model it begins with, or a new one; with the special tokens that the task needs."""
    own = folder / "model" / "tokenizer.json" if folder else None
    if own and own.exists():
        return Tokenizer.load(own)
    if not recipe.init:
        d = recipe.data
        texts = counted(texts_for_tokenizer(d, recipe.seed), "texts for the tokenizer")
        return train(texts, d.tokenizer, d.vocab_size, d.lowercase, specials=kind.specials, notes=notes)
    if given is None:
        raise DataError(f"{recipe.init} has no tokenizer.json", "put the tokenizer it was trained with into it")
    needed = [name for name in kind.specials if getattr(given, f"{name.strip('<>')}_id") is None]
    return given.with_specials(needed) if needed else given


def _with_ids(recipe: Recipe, config: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """The config with the tokenizer's size and special tokens; a model that exists keeps its own."""
    ids = {f"{name}_id": getattr(tokenizer, f"{name}_id") for name in ("pad", "bos", "eos")}
    if recipe.init:
        ids = {name: value if getattr(config, name) is None else getattr(config, name) for name, value in ids.items()}
        decoder = config.decoder_vocab_size and max(config.decoder_vocab_size, tokenizer.vocab_size)
        size = max(config.vocab_size, tokenizer.vocab_size)
        return replace(config, vocab_size=size, decoder_vocab_size=decoder, **ids)
    if recipe.task == "language-model":
        ids["bos_id"] = ids["eos_id"]  # what stands between texts is also what a new text starts from, as in GPT-2
    if 0 < config.vocab_size < tokenizer.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, model.vocab_size is {config.vocab_size}",
            "leave model.vocab_size out, or lower data.vocab_size",
        )
    return replace(config, vocab_size=config.vocab_size or tokenizer.vocab_size, **ids)
