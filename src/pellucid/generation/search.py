"""How a model speaks: greedy, sampling or beams, for any number of inputs of any length.

Inputs are sorted by length and batched inside; results come back in order and do not depend on what else is
in the batch: padding is masked, each text draws from random numbers of its own, and texts that have ended
leave the batch. `generate` returns when all is said, and calls `on_token` on the way; `stream` is an iterator
over the text of one input.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from pellucid.errors import DataError, UserError
from pellucid.generation.beam import Found, beam_search
from pellucid.generation.hypotheses import Hypothesis, Partial, Request, Rules, Tokenizer, edges
from pellucid.generation.options import GenerationOptions
from pellucid.generation.sampling import dice, draw, only_top_k, only_top_p
from pellucid.generation.speakers import Speaker, speaker_of
from pellucid.generation.trees import Trees
from pellucid.generation.workers import halves, side_by_side
from pellucid.models.config import ModelConfig
from pellucid.parts.products import SHARE, quick
from pellucid.progress import Progress

BATCH_TOKENS = 32768
"""Tokens, of inputs and of room for outputs times beams, that are held in memory at a time."""

Ids = Sequence[int]
Event = tuple[int, int | list[Hypothesis]]  # the input's index, and a token or, at its end, the hypotheses


def generate(
    model: nn.Module,
    inputs: Sequence[Ids],
    options: GenerationOptions = GenerationOptions(),  # noqa: B008 (frozen)
    tokenizer: Tokenizer | None = None,
    prefixes: Sequence[Ids] | None = None,
    on_token: Callable[[int, int], None] | None = None,
    first_index: int = 0,
    batch_tokens: int = BATCH_TOKENS,
) -> list[list[Hypothesis]]:
    """Completions of prompts (GPT) or answers to sources (Seq2Seq), given as ids: per input up to `n_best`
    hypotheses, the best first.

    prefixes: ids that each output must start with; they are part of the result. tokenizer: fills
    `Hypothesis.text`; needed for stop strings. on_token(index, token) is called for each new token but <eos>,
    with beams when an input is decided. first_index: the place of the first input in a longer list that is
    handed over in pieces, so that sampling is the same as in one piece. Raises UserError for options that
    contradict each other and DataError for inputs that the model cannot read.
    """
    requests = _requests(model, inputs, prefixes, options, first_index)
    results: list[list[Hypothesis]] = [[] for _ in inputs]
    with evaluating(model), _quick(model, options), Progress("answers", len(inputs)) as progress:
        for index, said in _events(model, requests, options, tokenizer, batch_tokens):
            if isinstance(said, list):
                results[index - first_index] = said
                progress.tick()
            elif on_token is not None:
                on_token(index, said)
    return results


def stream(
    model: nn.Module,
    ids: Ids,
    tokenizer: Tokenizer,
    options: GenerationOptions = GenerationOptions(),  # noqa: B008 (frozen)
    prefix: Ids = (),
) -> Iterator[str]:
    """The text of one completion or answer, piece by piece as it is said; with beams at the end. It starts
    with the forced prefix.

    What may be the beginning of a stop string is held back until it is clear that it is none.
    """
    requests = _requests(model, [ids], [prefix], options)
    begun, forced = edges(requests[0], tokenizer)
    pieces, given = tokenizer.stream(), begun
    text = "".join(pieces.push(token) for token in (*requests[0].before, *prefix))
    tail = max(map(len, options.stop), default=1) - 1
    with evaluating(model), _quick(model, options):
        for _, said in _events(model, requests, options, tokenizer, BATCH_TOKENS):
            text += pieces.push(said) if isinstance(said, int) else pieces.finish()
            places = [place for stop in options.stop if (place := text.find(stop, forced)) >= 0]
            safe = len(text) if isinstance(said, list) else max(len(text) - tail, min(forced, len(text)))
            safe = min(places, default=safe)
            if safe > given:
                yield text[given:safe]
                given = safe
            if places:
                return


def speak(speaker: Speaker, requests: list[Request], rules: Rules) -> Iterator[Event]:
    """One text per request, greedily (temperature 0) or by sampling: each token as it is chosen, at its end
    the hypothesis.
    """
    living = [Partial(request) for request in requests]
    numbers = {request.index: dice(rules.options.seed, request.index) for request in requests}
    said: list[int] | None = None
    while living:
        log_probabilities = rules.log_probabilities(speaker.next_logits(said), speaker.history, living)
        tokens = _choose(log_probabilities, rules.options, [numbers[partial.request.index] for partial in living])
        chances = log_probabilities.gather(-1, tokens[:, None]).squeeze(-1).tolist()
        rows: list[int] = []
        for row, (token, chance) in enumerate(zip(tokens.tolist(), chances, strict=True)):
            living[row] = partial = living[row].plus(token, chance)
            if token not in rules.ends:
                yield partial.request.index, token
            ended = rules.ended(partial)
            if ended or len(partial.chosen) >= partial.request.limit:
                yield partial.request.index, [rules.hypothesis(partial, ended)]
            else:
                rows.append(row)
        rows = _closed_up(rows)
        speaker.select(rows)
        living = [living[row] for row in rows]
        said = [partial.chosen[-1] for partial in living]


def _choose(log_probabilities: Tensor, options: GenerationOptions, generators: list[torch.Generator]) -> Tensor:
    if options.temperature == 0:
        return log_probabilities.argmax(-1)
    scores = only_top_k(log_probabilities / options.temperature, options.top_k)
    uniform = torch.cat([torch.rand(1, generator=generator) for generator in generators])
    return draw(only_top_p(scores, options.top_p), uniform.to(scores.device))


def _closed_up(rows: list[int]) -> list[int]:
    """The rows that stay, the last of them in the places of those that go: few have to be moved."""
    stay, behind = set(rows), [row for row in rows if row >= len(rows)]
    return [place if place in stay else behind.pop() for place in range(len(rows))]


def _events(
    model: nn.Module,
    requests: list[Request],
    options: GenerationOptions,
    tokenizer: Tokenizer | None,
    batch_tokens: int,
) -> Iterator[Event]:
    """All batches, one after the other."""
    config: ModelConfig = model.config  # type: ignore[assignment]
    rules, speaker_type = Rules(options, config, tokenizer), speaker_of(model)
    for batch in _batches(requests, options.beam, 0 if options.deterministic else batch_tokens):
        if options.beam == 1:
            speaker = speaker_type(model, [request.ids for request in batch], [request.prefix for request in batch])
            yield from speak(speaker, batch, rules)
            continue
        for index, best in _searched(model, batch, rules):
            yield from ((index, token) for token in best[0].ids[len(_by_index(batch, index).prefix) :])
            yield index, best


def _searched(model: nn.Module, batch: list[Request], rules: Rules) -> Iterator[tuple[int, list[Hypothesis]]]:
    """The batch by beam search, in two threads where that pays."""

    def search(part: list[Request]) -> Iterator[Found]:
        trees = Trees(model, [request.ids for request in part], [request.prefix for request in part])
        return beam_search(trees, part, rules)

    parts = halves(batch, len(batch) * rules.options.beam, next(model.parameters()).device)
    yield from side_by_side([partial(search, part) for part in parts])


def _by_index(batch: list[Request], index: int) -> Request:
    return next(request for request in batch if request.index == index)


def _batches(requests: list[Request], beam: int, batch_tokens: int) -> Iterator[list[Request]]:
    """Requests of like length together, the longest first, as many as fit into `batch_tokens`; at least one."""
    batch: list[Request] = []
    widest = 0
    for request in sorted(requests, key=lambda request: (-len(request.ids), request.index)):
        width = len(request.ids) + len(request.prefix) + request.limit
        widest = max(widest, width)
        if batch and (len(batch) + 1) * beam * widest > batch_tokens:
            yield batch
            batch, widest = [], width
        batch.append(request)
    if batch:
        yield batch


def _requests(
    model: nn.Module,
    inputs: Sequence[Ids],
    prefixes: Sequence[Ids] | None,
    options: GenerationOptions,
    first_index: int = 0,
) -> list[Request]:
    """Checked inputs. Raises what `generate` raises."""
    prefixes = [()] * len(inputs) if prefixes is None else prefixes
    if len(prefixes) != len(inputs):
        raise UserError(f"there are {len(inputs)} inputs and {len(prefixes)} prefixes", "give one prefix per input")
    config: ModelConfig = model.config  # type: ignore[assignment]
    requests, speaker = [], speaker_of(model)
    for index, (ids, prefix) in enumerate(zip(inputs, prefixes, strict=True), start=first_index):
        try:
            room = speaker.room(config, ids, prefix)
        except DataError as error:
            raise DataError(f"input {index + 1} {error.problem}", error.remedy) from None
        before = tuple(ids) if speaker.goes_on else ()
        requests.append(Request(index, tuple(ids), tuple(prefix), int(min(options.max_new, room)), before))
    return requests


def _quick(model: nn.Module, options: GenerationOptions) -> AbstractContextManager[None]:
    """Weights that are laid out on the way multiply in another order: what was said before would change an answer's last digits."""
    return quick(model, 0.0 if options.deterministic else SHARE)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off meanwhile; afterwards each module is as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
