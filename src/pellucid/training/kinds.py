"""What each task needs: which families and data go with it, and how its data, its batches and its judge are made. One table, `KINDS`.

`parts(recipe, tokenizer, config)`: name -> set, those parts of the data there are. `data(recipe, set, tokenizer, config)`: the batches of
a training set. `task(recipe, set, tokenizer, config)`: the task, with a held-out set to judge by.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pellucid.data.images import ImageData, ImageSet, prepare_images
from pellucid.data.labelled import LabelData, LabelSet, prepare_labels
from pellucid.data.masked import MaskedData, Vocabulary
from pellucid.data.pairs import PairData
from pellucid.data.prepare import PairSet, TextSet, prepare_pairs, prepare_text
from pellucid.data.prompts import PromptData
from pellucid.data.tagged import TagData, TagSet, prepare_tags
from pellucid.data.text import IGNORE, TextData
from pellucid.errors import DataError, UserError
from pellucid.models.config import ModelConfig
from pellucid.tasks.classification import Classification, Shown, Weighted, tag_scores
from pellucid.tasks.language import LanguageModel
from pellucid.tasks.masked import MaskedLanguageModel
from pellucid.tasks.spans import name_spans
from pellucid.tasks.translation import Held, Translation, prompted, seq2seq
from pellucid.text.tokenizer import Tokenizer
from pellucid.training.contracts import Data, Task
from pellucid.training.recipe import Recipe

FORMS = {"seq2seq": seq2seq, "gpt": prompted}
SHOWN = 3
"""Examples among the samples of an evaluation."""


@dataclass(frozen=True)
class Kind:
    """`head`: what a BERT is asked; `specials`: what its tokenizer must know; `unit`: what a target is called in the log."""

    families: tuple[str, ...]
    reads: tuple[str, ...]
    metrics: tuple[str, ...]
    parts: Callable[[Recipe, Any, ModelConfig], dict[str, Any]]
    data: Callable[[Recipe, Any, Any, ModelConfig], Data]
    task: Callable[[Recipe, Any, Any, ModelConfig], Task]
    head: Literal["words", "labels", "tags"] = "words"
    specials: tuple[str, ...] = ()
    unit: str = "tokens"


# --- pairs: translation, prompts and answers ----------------------------------------------------------------------------


def _pairs(recipe: Recipe, tokenizer: Tokenizer, config: ModelConfig) -> dict[str, PairSet]:
    return prepare_pairs(recipe.data, tokenizer, recipe.seed)


def _pair_data(recipe: Recipe, part: PairSet, tokenizer: Tokenizer, config: ModelConfig) -> PairData | PromptData:
    form = FORMS[config.family](tokenizer, config)
    return form.data(part.sources, part.targets, recipe.training.batch_tokens, recipe.seed, config.max_length)


def _translation(recipe: Recipe, part: PairSet, tokenizer: Tokenizer, config: ModelConfig) -> Translation:
    t = recipe.training
    held = Held(part.examples(t.evaluate_limit or None), part.sources, part.targets).first(t.evaluate_limit)
    form = FORMS[config.family](tokenizer, config)
    fits = held.within(config.max_length, form)
    if not fits.examples:
        raise DataError(f"every held-out pair is longer than the model's {config.max_length} tokens")
    left_out = len(held.examples) - len(fits.examples)
    return Translation(fits, tokenizer, recipe.generation, form, t.metric, t.label_smoothing, left_out)


# --- running text: language models, masked words ------------------------------------------------------------------------


def _texts(recipe: Recipe, tokenizer: Tokenizer, config: ModelConfig) -> dict[str, TextSet]:
    if recipe.training.length > config.max_length:
        raise UserError(
            f"training.length {recipe.training.length} is more than the model's {config.max_length} tokens",
            f"--training.length {config.max_length} or --model.max-length {recipe.training.length}",
        )
    return prepare_text(recipe.data, tokenizer)


def _text_data(recipe: Recipe, part: TextSet, tokenizer: Tokenizer, config: ModelConfig) -> TextData:
    return TextData(part.tokens, recipe.training.length, recipe.training.batch_size, recipe.seed)


def _language(recipe: Recipe, part: TextSet, tokenizer: Tokenizer, config: ModelConfig) -> LanguageModel:
    t, bytes_per_token = recipe.training, part.n_bytes / len(part.tokens)
    windows = TextData(part.tokens, min(t.length, len(part.tokens) - 1), t.batch_size)
    limit = t.evaluate_limit or None
    return LanguageModel(windows, bytes_per_token, tokenizer, recipe.generation, limit, t.label_smoothing)


def _masked_data(recipe: Recipe, part: TextSet, tokenizer: Tokenizer, config: ModelConfig) -> MaskedData:
    ids = {f"{name}_id": getattr(tokenizer, f"{name}_id") for name in ("bos", "eos", "mask")}
    if None in ids.values():
        raise UserError("masked words need a tokenizer with <bos>, <eos> and <mask> (or [CLS], [SEP], [MASK])")
    vocabulary = Vocabulary.of(**ids, joins=tokenizer.word_joins())
    return MaskedData(part.tokens, vocabulary, recipe.training.length, recipe.training.batch_size, recipe.seed)


def _masked(recipe: Recipe, part: TextSet, tokenizer: Tokenizer, config: ModelConfig) -> MaskedLanguageModel:
    t, windows = recipe.training, _masked_data(recipe, part, tokenizer, config)
    return MaskedLanguageModel(windows, tokenizer, t.metric, t.evaluate_limit or None, t.label_smoothing)


# --- labels of texts, of images, of words -------------------------------------------------------------------------------


def _labels(recipe: Recipe, tokenizer: Tokenizer, config: ModelConfig) -> dict[str, LabelSet]:
    return prepare_labels(recipe.data, tokenizer, recipe.seed, config.labels or None)


def _label_batches(recipe: Recipe, part: LabelSet, config: ModelConfig) -> LabelData:
    return LabelData(part.texts, part.labels, **_reading(recipe, config))


def _label_data(recipe: Recipe, part: LabelSet, tokenizer: Tokenizer, config: ModelConfig) -> Data:
    return _weighed(recipe, _label_batches(recipe, part, config), part.labels, config)


def _classify(recipe: Recipe, part: LabelSet, tokenizer: Tokenizer, config: ModelConfig) -> Classification:
    some = part.first(recipe.training.evaluate_limit)
    shown = [(example.source, [example.target]) for example in some.examples(SHOWN)]
    return _classification(recipe, config, _label_batches(recipe, some, config), len(some.labels), shown)


def _tags(recipe: Recipe, tokenizer: Tokenizer, config: ModelConfig) -> dict[str, TagSet]:
    return prepare_tags(recipe.data, tokenizer, recipe.seed, config.labels or None)


def _tag_batches(recipe: Recipe, part: TagSet, config: ModelConfig) -> TagData:
    return TagData(part.ids, part.tags, **_reading(recipe, config))


def _tag_data(recipe: Recipe, part: TagSet, tokenizer: Tokenizer, config: ModelConfig) -> Data:
    return _weighed(recipe, _tag_batches(recipe, part, config), part.tags.tokens, config)


def _tag(recipe: Recipe, part: TagSet, tokenizer: Tokenizer, config: ModelConfig) -> Classification:
    if recipe.training.metric == "f1" and not name_spans(config.labels):
        raise UserError(
            "training.metric = 'f1' counts spans, and no tag names one (B-…, I-…)", "use metric = 'accuracy'"
        )
    some = part.first(recipe.training.evaluate_limit)
    shown = [(" ".join(words), tags) for words, tags in some.examples(SHOWN)]
    whole = [row[row != IGNORE] for row in (some.tags[i] for i in range(len(some.tags)))]
    data, t = _tag_batches(recipe, some, config), recipe.training
    return Classification(
        data.sequential, len(whole), config.labels, shown, t.metric, t.label_smoothing, tag_scores, whole
    )


def _images(recipe: Recipe, tokenizer: None, config: ModelConfig) -> dict[str, ImageSet]:
    return prepare_images(recipe.data, config.image_size, config.channels, recipe.seed, config.labels or None)


def _image_data(recipe: Recipe, part: ImageSet, tokenizer: None, config: ModelConfig) -> Data:
    d = recipe.data
    images = ImageData(part, recipe.training.batch_size, recipe.seed, d.shift, d.flip)
    return _weighed(recipe, images, part.labels, config)


def _see(recipe: Recipe, part: ImageSet, tokenizer: None, config: ModelConfig) -> Classification:
    some = part.first(recipe.training.evaluate_limit)
    labels = [config.labels[k] if k >= 0 else "?" for k in some.labels[:SHOWN].tolist()]
    shown = [(example.source, [label]) for example, label in zip(some.examples(SHOWN), labels, strict=True)]
    return _classification(recipe, config, ImageData(some, recipe.training.batch_size), len(some.labels), shown)


def _reading(recipe: Recipe, config: ModelConfig) -> dict[str, Any]:
    ids = {f"{name}_id": getattr(config, f"{name}_id") or 0 for name in ("pad", "bos", "eos")}
    return ids | {"batch_tokens": recipe.training.batch_tokens, "seed": recipe.seed, "max_length": config.max_length}


def _weighed(recipe: Recipe, data: Data, labels: np.ndarray, config: ModelConfig) -> Data:
    return Weighted(data, labels, config.n_labels) if recipe.training.class_weight == "balanced" else data


def _classification(recipe: Recipe, config: ModelConfig, data: Any, n: int, shown: Shown) -> Classification:
    t = recipe.training
    return Classification(data.sequential, n, config.labels, shown, t.metric, t.label_smoothing)


_LABELLED = ("loss", "accuracy", "macro_f1")
_TAGGED = ("loss", "accuracy", "f1")
_GENERATES = ("loss", "exact_match", "bleu", "chrf")
_PAIRED = ("pairs", "dates", "copy", "reverse")

KINDS: dict[str, Kind] = {
    "translate": Kind(("seq2seq",), _PAIRED, _GENERATES, _pairs, _pair_data, _translation),
    "instruct": Kind(("gpt",), _PAIRED, _GENERATES, _pairs, _pair_data, _translation, specials=("<answer>",)),
    "language-model": Kind(("gpt",), ("text",), ("loss",), _texts, _text_data, _language),
    "masked-language-model": Kind(
        ("bert",), ("text",), ("loss", "accuracy"), _texts, _masked_data, _masked, specials=("<mask>",)
    ),
    "classify": Kind(
        ("bert",), ("labels",), _LABELLED, _labels, _label_data, _classify, "labels", ("<mask>",), "texts"
    ),
    "tag": Kind(("bert",), ("tags",), _TAGGED, _tags, _tag_data, _tag, "tags", ("<mask>",), "words"),
    "see": Kind(("vit",), ("images",), _LABELLED, _images, _image_data, _see, "labels", unit="images"),
}
"""By Recipe.task; to classify images goes by "see"."""


def kind_of(recipe: Recipe) -> Kind:
    """Its entry of the table."""
    return KINDS["see" if recipe.task == "classify" and recipe.model.family == "vit" else recipe.task]
