"""What is said: requests, texts under way, finished hypotheses, and the rules that every search keeps to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pellucid.errors import DataError, UserError
from pellucid.generation.options import GenerationOptions
from pellucid.generation.sampling import penalise
from pellucid.models.config import ModelConfig

AT_ONCE = 32
"""Rows whose log-probabilities are worked out at a time: few enough to stay in the processor's cache."""


class Tokenizer(Protocol):
    """What is asked of a tokenizer here; pellucid.text.tokenizer.Tokenizer has it."""

    vocab_size: int

    def decode(self, ids: list[int]) -> str:
        """Ids to text, special tokens left out."""
        ...

    def stream(self) -> Any:
        """An object with push(id) -> newly finished text, and finish() -> the rest."""
        ...


@dataclass(frozen=True)
class Request:
    """One input. index: its place among the inputs; limit: how many tokens may be said after the forced
    prefix.
    """

    index: int
    ids: tuple[int, ...]
    prefix: tuple[int, ...]
    limit: int
    before: tuple[int, ...] = ()


@dataclass(frozen=True)
class Hypothesis:
    """What was said. ids: forced prefix and chosen tokens, without <eos>.

    score: log-probability / length**length_penalty, in nats, over the chosen tokens (<eos> counts, the forced
    prefix does not; what a model's own start forces behind its first token counts in the length alone); without temperature, top-k and
    top-p. finished: it ended by <eos> or a stop string, not
    by the limit. text: where a tokenizer was given, cut before the stop string.
    """

    ids: list[int]
    score: float
    finished: bool
    text: str | None = None


@dataclass(frozen=True)
class Partial:
    """A text under way: the tokens chosen after the prefix, and their log-probability in nats."""

    request: Request
    chosen: tuple[int, ...] = ()
    log_probability: float = 0.0

    def plus(self, token: int, log_probability: float) -> "Partial":
        """This text and one more token. Raises DataError when the model's output is not a number."""
        if math.isnan(log_probability):
            raise DataError(
                "the model's output is not a number", "its weights are damaged, or overflow in this precision"
            )
        return Partial(self.request, (*self.chosen, token), self.log_probability + log_probability)


class Rules:
    """What holds for greedy, sampling and beams alike: which tokens may be said, when a text has ended, what
    it scores.
    """

    def __init__(self, options: GenerationOptions, config: ModelConfig, tokenizer: Tokenizer | None) -> None:
        if options.stop and tokenizer is None:
            raise UserError("stop strings need a tokenizer", "give one, or end at <eos> only")
        self.options, self.tokenizer = options, tokenizer
        self.ends = {token for token in (config.eos_id, *config.ends) if token is not None}
        silent = (config.pad_id, config.bos_id) if config.suppress is None else config.suppress
        size = config.decoder_vocab_size or config.vocab_size
        # rows that fill a table up stand for nothing
        nameless = range(tokenizer.vocab_size if tokenizer else size, size)
        self.banned = sorted({token for token in (*silent, *nameless) if token is not None} - self.ends)
        self.first_end = config.eos_id
        self.given = max(0, len(config.start) - 1)

    def log_probabilities(
        self, logits: Tensor, said: Sequence[Sequence[int]], living: Sequence[Partial] = ()
    ) -> Tensor:
        """Logits [B,V] to log-probabilities [B,V], those of the model, but -inf for what is never said (<pad> and <bos>, or what the
        config says; ids beyond the tokenizer's). The repetition penalty counts the tokens in `said`; with beams it multiplies the
        log-probabilities themselves, as `transformers` does. living: the rows' texts, for what depends on how long they are.
        """
        penalty, beams = self.options.repetition_penalty, self.options.beam > 1
        found = torch.log_softmax(logits if beams else penalise(logits, said, penalty), dim=-1)
        found = self._without(penalise(found, said, penalty) if beams else found, said, living)
        for row, partial in enumerate(living if self.options.force_end and self.ends else ()):
            if len(partial.chosen) + 1 == partial.request.limit:
                found[row] = -torch.inf
                found[row, self.first_end] = 0.0
        return found

    def best(
        self, logits: Tensor, said: Sequence[Sequence[int]], living: Sequence[Partial], n: int
    ) -> tuple[Tensor, Tensor]:
        """The n greatest of `log_probabilities` in each row, or all, and their tokens: [B,n] each. Raises DataError where one is not a
        number."""
        found = []
        for start in range(0, len(logits), AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            found.append(largest(self.log_probabilities(logits[rows], said[rows], living[rows]), n))
        values, tokens = (torch.cat(part) for part in zip(*found, strict=True))
        if values.isnan().any():
            raise DataError(
                "the model's output is not a number", "its weights are damaged, or overflow in this precision"
            )
        return values, tokens

    def _without(self, scores: Tensor, said: Sequence[Sequence[int]], living: Sequence[Partial]) -> Tensor:
        """The scores [B,V] with -inf, in place, for what may not be said."""
        scores[:, self.banned] = -torch.inf
        for row, before in enumerate(said if self.options.no_repeat else ()):
            scores[row, repeating(before, self.options.no_repeat)] = -torch.inf
        short = [row for row, partial in enumerate(living) if len(partial.chosen) < self.options.min_new]
        if short:
            scores[torch.tensor(short)[:, None], torch.tensor(sorted(self.ends))] = -torch.inf
        return scores

    def ended(self, partial: Partial) -> bool:
        """The last token is <eos>, or the text now holds a stop string."""
        return partial.chosen[-1] in self.ends or (bool(self.options.stop) and self._cut(partial)[1])

    def score(self, log_probability: float, length: int) -> float:
        """log-probability / length**length_penalty, the tokens that the model's start forces counted in, as `transformers` does."""
        return log_probability / max(1, length + self.given) ** self.options.length_penalty

    def hypothesis(self, partial: Partial, finished: bool) -> Hypothesis:
        """The text as it is handed out."""
        text = self._cut(partial)[0] if self.tokenizer is not None else None
        score = self.score(partial.log_probability, len(partial.chosen))
        return Hypothesis(self._ids(partial), score, finished, text)

    def _ids(self, partial: Partial) -> list[int]:
        ids = partial.chosen[:-1] if partial.chosen and partial.chosen[-1] in self.ends else partial.chosen
        return [*partial.request.prefix, *ids]

    def _cut(self, partial: Partial) -> tuple[str, bool]:
        """The text up to its first stop string after the prefix, and whether there is one."""
        assert self.tokenizer is not None
        begun, forced = edges(partial.request, self.tokenizer)
        text = self.tokenizer.decode([*partial.request.before, *self._ids(partial)])
        places = [place for stop in self.options.stop if (place := text.find(stop, forced)) >= 0]
        return text[begun : min(places, default=len(text))], bool(places)


def edges(request: Request, tokenizer: Tokenizer) -> tuple[int, int]:
    """In characters of the decoded whole: where what is handed out begins (after the prompt), and where the
    forced prefix ends.
    """
    before, prefix = list(request.before), list(request.prefix)
    begun = len(tokenizer.decode(before)) if before else 0
    return begun, len(tokenizer.decode(before + prefix)) if prefix else begun


def repeating(ids: Sequence[int], n: int) -> list[int]:
    """The tokens that behind `ids` would make their last n tokens a run that is there already."""
    last = list(ids[len(ids) - n + 1 :])
    return [ids[i + n - 1] for i in range(len(ids) - n + 1) if list(ids[i : i + n - 1]) == last]


def largest(scores: Tensor, n: int, width: int = 64) -> tuple[Tensor, Tensor]:
    """`topk` of rows [B,V], sorted: values and places [B,n], or all V if there are no n. Long rows are cut into pieces of `width`: the n
    greatest are surely in the n pieces with the greatest heads, and few numbers are left to sort."""
    n_pieces = scores.shape[1] // width
    if n_pieces < 4 * n:
        return scores.topk(min(n, scores.shape[1]))
    cut = n_pieces * width
    pieces = scores[:, :cut].unflatten(1, (n_pieces, width))
    first = pieces.amax(-1).topk(n, sorted=False).indices
    found = pieces.gather(1, first[..., None].expand(-1, -1, width)).flatten(1)
    places = (first[..., None] * width + torch.arange(width, device=scores.device)).flatten(1)
    rest = torch.arange(cut, scores.shape[1], device=scores.device).expand(len(scores), -1)
    values, at = torch.cat((found, scores[:, cut:]), 1).topk(n)
    return values, torch.cat((places, rest), 1).gather(1, at)
