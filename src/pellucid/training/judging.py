"""How a trained model is put to the test: its run's own recipe, or one made up for it, turned into a question and asked."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from torch import nn

from pellucid.data.config import absolute
from pellucid.errors import DataError, UserError
from pellucid.models.config import ModelConfig
from pellucid.tasks import metrics
from pellucid.tasks.judged import Judged
from pellucid.text.tokenizer import Tokenizer
from pellucid.training.kinds import kind_of
from pellucid.training.recipe import Recipe


def task_of(config: ModelConfig, tokenizer: Tokenizer | None) -> str:
    """The task a model is made for, told by what it is. Raises UserError for one that answers nothing."""
    if config.head in ("vector", "states"):
        raise UserError(f"this model was made for {config.head}: there is nothing to ask it", "see `pellucid embed`")
    asks = tokenizer is not None and tokenizer.answer_id is not None
    bert = {"labels": "classify", "tags": "tag"}.get(config.head, "masked-language-model")
    gpt = "instruct" if asks else "language-model"
    return {"seq2seq": "translate", "vit": "classify", "gpt": gpt, "bert": bert}[config.family]


def question(
    config: ModelConfig,
    tokenizer: Tokenizer | None,
    recipe: Recipe | None,
    data: Sequence[str] | None = None,
    beam: int | None = None,
    limit: int | None = None,
    columns: Sequence[str] = (),
) -> Recipe:
    """The recipe that asks for `data` (files; None = what the run learned from) and their `columns`, `limit` examples of it, with so wide a
    beam.

    Raises UserError where there is neither a recipe nor data.
    """
    if recipe is None and data is None:
        raise UserError("this model folder does not know its data", "say what to evaluate on: --data FILE …")
    own = recipe or Recipe(task=task_of(config, tokenizer), model=config)  # type: ignore[arg-type]
    if data is not None:
        kind, named = kind_of(own).reads[0], tuple(columns) or own.data.columns
        asked = replace(own.data, kind=kind, columns=named, train=(), valid=(), test=absolute(data))  # type: ignore[arg-type]
        own = replace(own, data=asked)
    length = min(own.training.length if recipe else 512, config.max_length)
    counts_words = own.task in ("translate", "instruct") and own.data.kind == "pairs" and metrics.has_bleu()
    training = replace(
        own.training, evaluate_limit=limit or 0, length=length, metric="bleu" if counts_words else "loss"
    )
    options = replace(own.generation, n_best=1, temperature=0.0, beam=beam or own.generation.beam)
    return replace(own, training=training, generation=options)


def judge(model: nn.Module, tokenizer: Tokenizer | None, asked: Recipe, part: str = "test") -> Judged:
    """What the model does with each example of a part of the data ("valid" where a text has no "test"); `notes` among the details: what
    a person should know of that part."""
    kind, config = kind_of(asked), cast(ModelConfig, model.config)
    parts = kind.parts(asked, tokenizer, config)
    if asked.data.test and not asked.data.train:  # files to judge by were named: they are all there is
        part = "test"
    part = "valid" if part == "test" and "test" not in parts and "valid" in parts else part
    if part not in parts:
        raise UserError(f"there is no part {part!r} of the data", "there is: " + ", ".join(parts))
    judged = kind.task(asked, parts[part], tokenizer, config).judge(model)
    if math.isnan(judged.scores["loss"](np.arange(judged.n))):
        known = f"the labels of this model: {', '.join(config.labels[:10])}" if config.labels else ""
        raise DataError("nothing in this data can be scored", known)
    notes = {"notes": list(parts[part].notes)} if parts[part].notes else {}
    return replace(judged, details={**judged.details, **notes})
