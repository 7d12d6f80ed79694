"""`pellucid.load(...)` gives a Pipeline: a model, its tokenizer and what it can do."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from torch import nn

from pellucid.data.config import DataConfig
from pellucid.data.prepare import prepare_pairs, prepare_text
from pellucid.data.text import TextData
from pellucid.errors import DataError, UserError
from pellucid.generation.hypotheses import Hypothesis
from pellucid.generation.options import GenerationOptions
from pellucid.generation.search import generate, stream
from pellucid.models import storage
from pellucid.models.config import ModelConfig
from pellucid.parts.taps import record_attention
from pellucid.tasks import language, metrics, translation
from pellucid.text.tokenizer import Tokenizer
from pellucid.training import checkpoints, devices
from pellucid.training.recipe import Recipe, load_recipe

Part = TypeVar("Part")


@dataclass(frozen=True)
class Generated:
    """One text that was said; `score`: log-probability / length**length_penalty, in nats; `finished`: it ended by itself, not by `max_new`;
    `others`: the next best, where `n_best` asks for them."""

    text: str
    score: float
    finished: bool
    others: tuple["Generated", ...] = ()


def _generated(hypotheses: Sequence[Hypothesis]) -> Generated:
    best, *others = [Generated(h.text or "", h.score, h.finished) for h in hypotheses]
    return replace(best, others=tuple(others))


def load(path: str | Path, dtype: torch.dtype | None = None, device: str | torch.device = "auto") -> "Pipeline":
    """The model of a run folder or a model folder, ready to use, on the best device there is or the one named.

    Raises DataError when there is none, when a file is damaged, or when it is of a family that cannot be read.
    """
    folder, device = Path(path).expanduser(), devices.find(str(device))
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder", _runs_here())
    if not (folder / "run.toml").is_file():
        return Pipeline(*storage.load(folder, dtype, device))
    recipe = load_recipe(folder / "run.toml")
    if (folder / "model" / "model.safetensors").exists():
        return Pipeline(*storage.load(folder / "model", dtype, device), recipe)
    return Pipeline(*_unfinished(folder, dtype, device), recipe)


def _unfinished(folder: Path, dtype: torch.dtype | None, device: str) -> tuple[nn.Module, Tokenizer]:
    """The newest checkpoint of a run that has not ended."""
    if not any((folder / "checkpoints").glob("step-*")):
        raise DataError(f"{folder} has no model yet", f"go on with it: pellucid resume {folder}")
    newest = checkpoints.latest(folder / "checkpoints", lambda note: None)
    config = json.loads((newest / "config.json").read_text(encoding="utf-8"))
    tensors = checkpoints.read(newest, "model") | (
        checkpoints.read(newest, "ema") if (newest / "ema.safetensors").exists() else {}
    )
    model = storage.assemble(config, tensors, str(newest))
    return model.to(device=device, dtype=dtype).eval(), Tokenizer.load(folder / "model")


def _runs_here() -> str:
    runs = sorted(str(path.parent) for path in Path("runs").glob("*/run.toml"))
    return "runs here: " + ", ".join(runs) if runs else "train one: pellucid train dates"


def _part(parts: Mapping[str, Part], name: str) -> Part:
    if name not in parts:
        raise UserError(f"there is no part {name!r} of the data", "there is: " + ", ".join(parts))
    return parts[name]


class Pipeline:
    """What a model can do. `options`: how it speaks unless told otherwise, from the run's recipe."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer | None = None, recipe: Recipe | None = None) -> None:
        self.model, self._tokenizer, self.recipe = model, tokenizer, recipe
        self.config: ModelConfig = model.config  # type: ignore[assignment]
        self.options = recipe.generation if recipe else GenerationOptions()

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises DataError for a model folder without one."""
        if self._tokenizer is None:
            raise DataError(
                "this model folder has no tokenizer.json", "put the tokenizer the model was trained with into it"
            )
        return self._tokenizer

    @overload
    def generate(self, texts: str, options: GenerationOptions | None = None, prefix: str = "") -> Generated: ...  # type: ignore[overload-overlap]

    @overload
    def generate(
        self, texts: Sequence[str], options: GenerationOptions | None = None, prefix: str = "", first_index: int = 0
    ) -> list[Generated]: ...

    def generate(
        self,
        texts: str | Sequence[str],
        options: GenerationOptions | None = None,
        prefix: str = "",
        first_index: int = 0,
    ) -> Generated | list[Generated]:
        """The completion (GPT) or translation (Seq2Seq) of a text, or of each of several, in order; a completion does not repeat its
        prompt.

        Any number of texts of any length: they are batched inside, and none changes another's answer. prefix: what each answer starts
        with. first_index: the place of the first text in a longer list handed over in pieces, so that sampling is the same as in one.
        """
        given = [texts] if isinstance(texts, str) else list(texts)
        starts = [self.tokenizer.encode(prefix)] * len(given)
        chosen = options or self.options
        found = generate(self.model, self._encode(given), chosen, self.tokenizer, starts, first_index=first_index)
        answers = [_generated(hypotheses) for hypotheses in found]
        return answers[0] if isinstance(texts, str) else answers

    def stream(self, text: str, options: GenerationOptions | None = None, prefix: str = "") -> Iterator[str]:
        """The completion or translation of one text, piece by piece; there is one (`n_best` is 1)."""
        if (options or self.options).n_best != 1:
            raise UserError("only one answer can be streamed", "set n_best to 1, or use generate")
        start = self.tokenizer.encode(prefix)
        return stream(self.model, self._encode([text])[0], self.tokenizer, options or self.options, start)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """As in training: before a prompt stands <bos> where the tokenizer of a foreign model asks for it."""
        ids = self.tokenizer.encode_batch(list(texts))
        begins = self.tokenizer.begins_with_bos and self.config.family == "gpt"
        return [[self.tokenizer.bos_id or 0, *row] for row in ids] if begins else ids

    @torch.no_grad()
    def alignment(self, source: str, target: str | None = None) -> tuple[list[str], list[str], np.ndarray]:
        """(source tokens, target tokens, weights [T,S]): what each target token looked at when it was said, the mean of all heads of the
        last decoder layer. target: None = the model's own answer. Seq2Seq only."""
        model: Any = self.model
        if model.config.family != "seq2seq":
            raise UserError(f"an alignment needs an encoder-decoder, this is a {model.config.family}")
        target = self.generate(source).text if target is None else target
        ids, said = self.tokenizer.encode(source), [*self.tokenizer.encode(target), self.tokenizer.eos_id or 0]
        start = [self.tokenizer.bos_id or 0, *said[:-1]]
        device = next(model.parameters()).device
        last = f"decoder.blocks.{len(model.decoder.blocks) - 1}.cross.branch.attend"
        with record_attention(model, last) as weights:
            model(torch.tensor([ids], device=device), torch.tensor([start], device=device))
        matrix = weights[last][0][0].mean(0).cpu().numpy()
        return self.tokenizer.tokens(ids), self.tokenizer.tokens(said), matrix

    def evaluate(
        self, data: Sequence[str] | None = None, split: str = "test", beam: int | None = None, limit: int | None = None
    ) -> dict[str, Any]:
        """The task's metrics on `data` (files, as `--data` of train) or on a held-out part of the run's own data. limit: the first N."""
        if self.recipe is None and data is None:
            raise UserError("this model folder does not know its data", "say what to evaluate on: --data FILE …")
        part, config = self._data(data, split)
        if self.config.family == "seq2seq":
            pairs = _part(prepare_pairs(config, self.tokenizer, self.recipe.seed if self.recipe else 0), part)
            every = translation.Held(pairs.examples(), pairs.sources, pairs.targets).first(limit)
            held = every.within(self.config.max_length)
            if not held.examples:
                raise DataError(f"every pair is longer than the model's {self.config.max_length} tokens")
            options = replace(self.options, n_best=1, temperature=0.0, beam=beam or self.options.beam)
            wants_bleu = metrics.has_bleu() and not any(e.group for e in held.examples)
            result = translation.evaluate(self.model, held, self.tokenizer, options, wants_bleu)
            too_long = len(every.examples) - len(held.examples)
            return result | ({"left_out_too_long": too_long} if too_long else {})
        parts = prepare_text(config, self.tokenizer)
        text = _part(parts, "valid" if part == "test" and "test" not in parts else part)
        length = self.recipe.training.length if self.recipe else min(512, self.config.max_length)
        if len(text.tokens) < 2:
            raise DataError("the text has fewer than two tokens: there is nothing to predict", "give more text")
        length = min(length, len(text.tokens) - 1)
        windows = TextData(text.tokens, length, max(1, 8192 // length))
        return language.evaluate(self.model, windows, text.n_bytes / len(text.tokens), limit)

    def _data(self, data: Sequence[str] | None, split: str) -> tuple[str, DataConfig]:
        own = self.recipe.data if self.recipe else None
        if data is None:
            return split, own  # type: ignore[return-value]
        kind = "pairs" if self.config.family == "seq2seq" else "text"
        files = tuple(str(Path(name).expanduser().absolute()) for name in data)
        return "test", DataConfig(kind, test=files)  # type: ignore[arg-type]
