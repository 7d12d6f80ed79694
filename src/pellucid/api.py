"""`pellucid.load(...)` gives a Pipeline: a model, its tokenizer and what it can do."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import nn

from pellucid.data.tagged import word_pieces
from pellucid.errors import DataError, UserError
from pellucid.generation.options import GenerationOptions, of_folder
from pellucid.generation.search import generate, stream
from pellucid.generation.speakers import start_ids
from pellucid.models.config import ModelConfig
from pellucid.models.hub import find
from pellucid.models.sentences import Sentences, read_sentences
from pellucid.parts.products import quick
from pellucid.parts.quantized import check_precision, quantize
from pellucid.parts.taps import record_attention
from pellucid.tasks.answers import Classified, Generated, generated
from pellucid.tasks.pixels import read_images, read_pixels, refuse_other
from pellucid.tasks.reading import around, asked, padded, read
from pellucid.tasks.spans import stretches
from pellucid.tasks.vectors import pooling_of, vectors
from pellucid.text.tokenizer import Tokenizer
from pellucid.training import devices
from pellucid.training.judging import judge, question, task_of
from pellucid.training.opening import open_model
from pellucid.training.recipe import Recipe, load_recipe

BATCH = 32  # texts or images that are read at once
CAN = "`pellucid --help` tells what each verb does; `pellucid train --help` which recipe makes a model for it"


def load(
    path: str | Path,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "auto",
    precision: str | None = None,
) -> "Pipeline":
    """The model of a run folder, a model folder or a name on the hub, ready to use, on the best device there is or the one named.

    precision: "float32", "bfloat16", "int8" or "int4" weights, laid out for the CPU, where it then is: for use alone, and what it costs in
    quality is told in `parts.quantized`. Raises UserError for another, or beside a dtype; DataError when there is no model, when a file is
    damaged, or when it is of a family that cannot be read.
    """
    if dtype and precision:
        raise UserError(f"weights cannot be {dtype} and in {precision}", "give dtype or precision")
    where = devices.find("cpu" if precision and device == "auto" else str(device))
    if precision:
        check_precision(precision, where)
    folder = find(str(path))
    model, tokenizer = open_model(folder, dtype, where, mapped=os.name != "nt")
    model = quantize(model, precision) if precision else model
    if not (folder / "run.toml").is_file():
        return Pipeline(model, tokenizer, folder=folder)
    return Pipeline(model, tokenizer, load_recipe(folder / "run.toml"), folder / "model")


def _batched(many: list[Any]) -> list[list[Any]]:
    return [many[i : i + BATCH] for i in range(0, len(many), BATCH)]


class Pipeline:
    """What a model can do. `options`: how it speaks unless told otherwise, from the run's recipe and the model's folder; `undone`: what the
    folder's generation_config.json asks for that is not done here. As the folder says: `sentences`, how texts become vectors; `pixels`, how
    it reads pictures (None = as in training here); `longest`: tokens of a text that it reads."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer | None = None,
        recipe: Recipe | None = None,
        folder: Path | None = None,
    ) -> None:
        self.model, self._tokenizer, self.recipe = model, tokenizer, recipe
        self.config: ModelConfig = model.config  # type: ignore[assignment]
        asked = recipe.generation if recipe else GenerationOptions()
        self.options, self.undone = of_folder(folder, self.config, asked) if folder else (asked, {})
        self.sentences = read_sentences(folder, self.config, tokenizer) if folder else Sentences()
        self.pixels = read_pixels(folder, self.config) if folder else None
        self.longest = min(self.config.max_length, self.sentences.max_length or self.config.max_length)

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
        starts = [self.tokenizer.target.encode(prefix)] * len(given)
        chosen = options or self.options
        found = generate(
            self.model, self._encode(given), chosen, self.tokenizer.target, starts, first_index=first_index
        )
        answers = [generated(hypotheses) for hypotheses in found]
        return answers[0] if isinstance(texts, str) else answers

    def stream(self, text: str, options: GenerationOptions | None = None, prefix: str = "") -> Iterator[str]:
        """The completion or translation of one text, piece by piece; there is one (`n_best` is 1)."""
        if (options or self.options).n_best != 1:
            raise UserError("only one answer can be streamed", "set n_best to 1, or use generate")
        start, speaks = self.tokenizer.target.encode(prefix), self.tokenizer.target
        return stream(self.model, self._encode([text])[0], speaks, options or self.options, start)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return asked(texts, self.tokenizer, self.config)

    @torch.no_grad()
    def alignment(self, source: str, target: str | None = None) -> tuple[list[str], list[str], np.ndarray]:
        """(source tokens, target tokens, weights [T,S]): what each target token looked at when it was said, the mean of all heads of the
        last decoder layer. target: None = the model's own answer. Seq2Seq only."""
        model: Any = self.model
        if model.config.family != "seq2seq":
            raise UserError(f"an alignment needs an encoder-decoder, this is a {model.config.family}")
        target = self.generate(source).text if target is None else target
        ids, speaks = self._encode([source])[0], self.tokenizer.target
        said = [*speaks.encode(target), self.config.eos_id or 0]
        start = [*start_ids(self.config), *said[:-1]]
        device = next(model.parameters()).device
        last = f"decoder.blocks.{len(model.decoder.blocks) - 1}.cross.branch.attend"
        with record_attention(model, last) as weights:
            model(torch.tensor([ids], device=device), torch.tensor([start], device=device))
        matrix = weights[last][0][0].mean(0)[-len(said) :].cpu().numpy()
        return self.tokenizer.tokens(ids), speaks.tokens(said), matrix

    def classify(self, given: str | Path | Sequence[str | Path]) -> Classified | list[Classified]:
        """The label of a text, or of an image file, with the probability of each label; or of each of several, in order."""
        many = [given] if isinstance(given, str | Path) else list(given)
        self._needs("classify", self.config.family == "vit" or self.config.head == "labels")
        logits = torch.cat([self._logits(some) for some in _batched(many)]) if many else torch.zeros(0, 1)
        rows = logits.softmax(-1).tolist()
        names = self.config.labels or tuple(map(str, range(self.config.n_labels)))
        found = [
            Classified(names[max(range(len(p)), key=p.__getitem__)], max(p), dict(zip(names, p, strict=True)))
            for p in rows
        ]
        return found[0] if isinstance(given, str | Path) else found

    @torch.no_grad()
    def _logits(self, some: Sequence[str | Path]) -> torch.Tensor:
        with quick(self.model):
            if self.config.family != "vit":
                return self.model(*self._read(list(map(str, some)))).float()
            weight = next(self.model.parameters())
            return self.model(read_images(some, self.config, self.pixels).to(weight)).float()

    @torch.no_grad()
    def tag(self, text: str) -> list[tuple[str, str, float]]:
        """(word, tag, its probability) of each word of a text, words being what white space parts."""
        self._needs("tag", self.config.family == "bert" and self.config.head == "tags")
        words, c = text.split(), self.config
        pieces = word_pieces(self.tokenizer, [words])[0]
        found: list[tuple[str, str, float]] = []
        for first, last in stretches([len(piece) for piece in pieces], c.max_length - 2):
            ids = list(chain.from_iterable(pieces[first:last]))[: c.max_length - 2]
            places = [0, *accumulate(len(piece) for piece in pieces[first : last - 1])]
            logits = self.model(*self._tensor([[c.bos_id or 0, *ids, c.eos_id or 0]]))[0].float()
            best = logits.softmax(-1)[[1 + place for place in places]].max(-1)
            tags = [c.labels[i] for i in best.indices.tolist()]
            found += zip(words[first:last], tags, best.values.tolist(), strict=True)
        return found

    @torch.no_grad()
    def fill(self, text: str, top: int = 5) -> list[list[tuple[str, float]]]:
        """For each <mask> (or [MASK]) of a text the `top` likeliest words with their probabilities; nothing for a text without one."""
        self._needs("fill", self.config.family == "bert" and self.config.head == "words")
        mask = self.tokenizer.tokens([self.tokenizer.mask_id or 0])[0]
        # in these a space is part of the word behind it
        before = r"\s*" if self.tokenizer.kind in ("byte-bpe", "unigram") else ""
        text = re.sub(before + r"(<mask>|\[MASK\])", mask, text)
        ids, keep = self._read([text], specials=True)
        places = torch.nonzero(ids[0] == (self.tokenizer.mask_id or 0))[:, 0]
        if len(places) < text.count(mask):
            raise UserError(
                f"a {mask} stands behind the {self.config.max_length} tokens that the model reads", "shorten the text"
            )
        logits = self.model(ids, keep)[0, places].float() if len(places) else torch.zeros(0, self.config.vocab_size)
        logits[:, list(self.tokenizer.specials.values())] = -torch.inf  # no word
        best = logits.softmax(-1).topk(min(top, logits.shape[1]))
        return [
            [(word, p) for i, p in zip(ids, ps, strict=True) if (word := self.tokenizer.decode([i]).strip())]
            for ids, ps in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def embed(
        self, texts: str | Sequence[str], pooling: str | None = None, normalised: bool | None = None
    ) -> np.ndarray:
        """A vector [D] of a text, or [N,D] of several: the mean of its tokens' states, the first one ("cls"), the last one ("last") or the
        largest at each place ("max"); `normalised` to length 1. None = as the model's folder says, else the mean as it is."""
        self._needs("embed", self.config.family != "vit")
        pooling = pooling_of(self.config.family, self.sentences.pooling if pooling is None else pooling)
        normalised = self.sentences.normalised if normalised is None else normalised
        many = [texts] if isinstance(texts, str) else list(texts)
        order = sorted(range(len(many)), key=lambda i: len(many[i]))  # texts of a length share a batch: less padding
        batches = _batched([many[i] for i in order])
        with quick(self.model):
            found = [vectors(self.model, *self._read(some), pooling, normalised).cpu() for some in batches]
        out = torch.cat(found)[np.argsort(order)] if found else torch.zeros(0, self.config.stack.d_model)
        return out[0].numpy() if isinstance(texts, str) else out.numpy()

    def n_cut(self, texts: Sequence[str]) -> int:
        """How many texts are longer than the model reads: of those `classify` and `embed` see the beginning."""
        if self._tokenizer is None:
            return 0
        room = self.longest - sum(map(len, around(self._tokenizer, self.config)))
        return sum(len(row) > room for row in self._tokenizer.encode_batch(list(texts)))

    def _needs(self, verb: str, can: bool) -> None:
        if not can:
            c = self.config
            made = f" made for {c.head}" if c.family == "bert" else ""
            raise UserError(f"this model cannot {verb}: it is a {c.family}{made}", CAN)

    def _read(self, texts: Sequence[str], specials: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """ids [B,T] and keep [B,T], cut to what the model knows."""
        return self._tensor(read(texts, self.tokenizer, self.config, self.longest, specials))

    def _tensor(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        return padded(rows, self.config, next(self.model.parameters()).device)

    def evaluate(
        self,
        data: Sequence[str] | None = None,
        split: str = "test",
        beam: int | None = None,
        limit: int | None = None,
        compare: "Pipeline | None" = None,
        columns: Sequence[str] = (),
    ) -> dict[str, Any]:
        """The task's metrics on `data` (files, as `--data` of train) or on a held-out part of the run's own data, with their bootstrap
        `intervals` (95 %). limit: the first N (of labels, tags and images: N evenly spread). columns: the two columns of `data` that count.
        compare: another model that is asked the same; `compared` tells each metric's difference (this minus the other), its interval and p.
        """
        for one in (self, compare or self):
            refuse_other(one.pixels)
        tasks = [task_of(one.config, one._tokenizer) for one in (self, compare or self)]
        if tasks[0] != tasks[1]:
            raise UserError(f"one model was made to {tasks[0]}, the other to {tasks[1]}", "compare models of one task")
        asked = question(self.config, self._tokenizer, self.recipe, data, beam, limit, columns)
        speaks = replace(self.options, n_best=1, temperature=0.0, beam=beam or self.options.beam)
        asked = replace(asked, generation=speaks)
        judged = judge(self.model, self._tokenizer, asked, split)
        result = judged.numbers() | {"intervals": judged.intervals()}
        if compare is not None:
            other = replace(
                asked, generation=replace(compare.options, n_best=1, temperature=0.0, beam=asked.generation.beam)
            )
            result["compared"] = judged.against(judge(compare.model, compare._tokenizer, other, split))
        return result

    def confusion(self, split: str = "test", data: Sequence[str] | None = None) -> tuple[tuple[str, ...], np.ndarray]:
        """(names, counts int64 [true, predicted]) of a classifier's held-out examples; labels that training never showed do not count."""
        self._needs("classify", self.config.n_labels > 0)
        refuse_other(self.pixels)
        names, number = self.config.labels, {name: i for i, name in enumerate(self.config.labels)}
        judged = judge(self.model, self._tokenizer, question(self.config, self._tokenizer, self.recipe, data), split)
        counts = np.zeros((len(names), len(names)), np.int64)
        for true, answer in zip(chain(*judged.asked), chain(*judged.said), strict=True):
            if true in number and answer >= 0:
                counts[number[true], answer] += 1
        return names, counts
