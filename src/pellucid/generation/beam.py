"""Beam search that stops rightly.

At each step the `beam` best continuations of an input that have not ended live on; those among the best `beam` that have ended are set
aside, and make no beam narrower. With one beam this is greedy search, exactly; with as many beams as there are texts it is exhaustive. It
is the search of `transformers` with early_stopping="never"; its other two ways to stop are there for the models that ask for them.

When to stop is where many implementations err. The score of a text is its log-probability / length**penalty,
so a longer text may overtake a finished one although its log-probability only falls. The search ends only
when no living text can, in the best case, still beat the worst hypothesis that would be returned. The best
case: not one nat more is lost, and the length is the most favourable one, which is the limit for a positive
penalty (dividing a negative number by more makes it larger) and the next step for one that is zero or
negative.
"""

from collections.abc import Iterator
from itertools import groupby

from torch import Tensor

from pellucid.generation.hypotheses import Hypothesis, Partial, Request, Rules
from pellucid.generation.speakers import Speaker

Candidate = tuple[int, Partial]  # the row that it goes on from, and the text


def beam_search(speaker: Speaker, requests: list[Request], rules: Rules) -> Iterator[tuple[int, list[Hypothesis]]]:
    """Yields (index, n_best hypotheses, best first) for each request as soon as it is decided. A text that the limit cuts off stands
    beside those that ended: the score alone decides.
    """
    living: list[Partial] = [Partial(request) for request in requests]
    ended: dict[int, list[Partial]] = {request.index: [] for request in requests}
    width, said = rules.options.beam, None
    spare = width * max(1, len(rules.ends)) if width > 1 else 0  # so many may end at once
    while living:
        log_probabilities = rules.log_probabilities(speaker.next_logits(said), speaker.history, living)
        candidates = _expand(living, log_probabilities, width + spare)
        survivors: list[Candidate] = []
        for request, group in groupby(candidates, key=lambda candidate: candidate[1].request):
            best = sorted(group, key=lambda candidate: -candidate[1].log_probability)
            over = [rules.ended(partial) for _, partial in best]
            ended[request.index] += [partial for (_, partial), end in zip(best[:width], over, strict=False) if end]
            alive = [candidate for candidate, end in zip(best, over, strict=True) if not end][:width]
            if _decided([partial for _, partial in alive], ended[request.index], rules):
                cut = [partial for (_, partial), end in zip(best[:width], over, strict=False) if not end]
                yield request.index, _ranked(ended.pop(request.index), cut, rules)
            else:
                survivors += alive
        speaker.select([row for row, _ in survivors])
        living = [partial for _, partial in survivors]
        said = [partial.chosen[-1] for partial in living]


def _expand(living: list[Partial], log_probabilities: Tensor, width: int) -> list[Candidate]:
    """Each row's `width` best continuations: the best of an input are surely among them."""
    values, tokens = log_probabilities.topk(min(width, log_probabilities.shape[-1]))
    return [
        (row, partial.plus(token, value))
        for row, (partial, row_values, row_tokens) in enumerate(
            zip(living, values.tolist(), tokens.tolist(), strict=True)
        )
        for value, token in zip(row_values, row_tokens, strict=True)
        if value != float("-inf")
    ]


def _decided(alive: list[Partial], ended: list[Partial], rules: Rules) -> bool:
    """Nothing lives, the limit is reached, or no living text can still beat the worst of the n_best ended ones; or as the other ways of
    `stopping` have it: when as many as the beam is wide have ended, or no living text would beat the worst of those if it ended now.
    """
    if not alive or len(alive[0].chosen) >= alive[0].request.limit:
        return True
    o, length = rules.options, len(alive[0].chosen)
    needed = o.n_best if o.stopping == "never" else o.beam
    kept = sorted((_score(partial, rules) for partial in ended), reverse=True)[:needed]
    if len(kept) < needed or o.stopping == "full":
        return len(kept) == needed
    if o.stopping == "never":
        length = alive[0].request.limit if o.length_penalty > 0 else length + 1
    return rules.score(max(partial.log_probability for partial in alive), length) <= kept[-1]


def _score(partial: Partial, rules: Rules) -> float:
    return rules.score(partial.log_probability, len(partial.chosen))


def _ranked(ended: list[Partial], cut: list[Partial], rules: Rules) -> list[Hypothesis]:
    """The n_best by score: of the ended ones and, at the limit, of those it cuts off."""
    at_limit = bool(cut) and len(cut[0].chosen) >= cut[0].request.limit
    pool = [(partial, True) for partial in ended]
    pool += [(partial, False) for partial in cut] if at_limit or len(pool) < rules.options.n_best else []
    pool.sort(key=lambda one: -_score(one[0], rules))
    return [rules.hypothesis(partial, finished) for partial, finished in pool[: rules.options.n_best]]
