"""Beam search that stops rightly.

At each step the `beam` best continuations of an input survive; those that have ended are set aside and no
longer take part, the others live on and spread to `beam` again at the next step. With one beam this is greedy
search, exactly; with as many beams as there are texts it is exhaustive.

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
    """Yields (index, n_best hypotheses, best first) for each request as soon as it is decided; finished ones
    come before unfinished ones.
    """
    living: list[Partial] = [Partial(request) for request in requests]
    ended: dict[int, list[Partial]] = {request.index: [] for request in requests}
    said: list[int] | None = None
    while living:
        log_probabilities = rules.log_probabilities(speaker.next_logits(said), speaker.history)
        candidates = _expand(living, log_probabilities, rules.options.beam)
        survivors: list[Candidate] = []
        for request, group in groupby(candidates, key=lambda candidate: candidate[1].request):
            best = sorted(group, key=lambda candidate: -candidate[1].log_probability)[: rules.options.beam]
            over = [rules.ended(partial) for _, partial in best]
            ended[request.index] += [partial for (_, partial), end in zip(best, over, strict=True) if end]
            alive = [candidate for candidate, end in zip(best, over, strict=True) if not end]
            if _decided([partial for _, partial in alive], ended[request.index], rules):
                yield request.index, _ranked(ended.pop(request.index), [partial for _, partial in alive], rules)
            else:
                survivors += alive
        speaker.select([row for row, _ in survivors])
        living = [partial for _, partial in survivors]
        said = [partial.chosen[-1] for partial in living]


def _expand(living: list[Partial], log_probabilities: Tensor, beam: int) -> list[Candidate]:
    """Each row's `beam` best continuations: the best of an input are surely among them."""
    values, tokens = log_probabilities.topk(min(beam, log_probabilities.shape[-1]))
    return [
        (row, partial.plus(token, value))
        for row, (partial, row_values, row_tokens) in enumerate(
            zip(living, values.tolist(), tokens.tolist(), strict=True)
        )
        for value, token in zip(row_values, row_tokens, strict=True)
        if value != float("-inf")
    ]


def _decided(alive: list[Partial], ended: list[Partial], rules: Rules) -> bool:
    """Nothing lives, the limit is reached, or no living text can still beat the worst of the n_best ended
    ones.
    """
    if not alive or len(alive[0].chosen) >= alive[0].request.limit:
        return True
    kept = sorted((_score(partial, rules) for partial in ended), reverse=True)[: rules.options.n_best]
    if len(kept) < rules.options.n_best:
        return False
    length = alive[0].request.limit if rules.options.length_penalty > 0 else len(alive[0].chosen) + 1
    return rules.score(max(partial.log_probability for partial in alive), length) <= kept[-1]


def _score(partial: Partial, rules: Rules) -> float:
    return rules.score(partial.log_probability, len(partial.chosen))


def _ranked(ended: list[Partial], alive: list[Partial], rules: Rules) -> list[Hypothesis]:
    """The n_best: ended ones by score, then, where they are too few, those cut off by the limit."""
    order = [
        rules.hypothesis(partial, finished)
        for partials, finished in ((ended, True), (alive, False))
        for partial in sorted(partials, key=lambda partial: -_score(partial, rules))
    ]
    return order[: rules.options.n_best]
