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

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pellucid.generation.hypotheses import Hypothesis, Partial, Request, Rules
from pellucid.generation.trees import Trees

Found = tuple[int, list[Hypothesis]] | None
Candidate = tuple[int, int, float]  # the leaf that it goes on from, the token, and the log-probability of the whole


def beam_search(trees: Trees, requests: list[Request], rules: Rules) -> Iterator[Found]:
    """Yields (index, n_best hypotheses, best first) for each request as soon as it is decided, and None at each step, so that who listens
    can end it there. A text that the limit cuts off stands beside those that ended: the score alone decides.
    """
    living = [[Partial(request)] for request in requests]
    ended: dict[int, list[Partial]] = {request.index: [] for request in requests}
    width = rules.options.beam
    spare = width * max(1, len(rules.ends)) if width > 1 else 0  # so many may end at once
    logits = trees.next_logits() if living else None
    while logits is not None:
        yield None
        grown: list[list[tuple[int, Partial]]] = []
        rows = []
        for row, candidates in enumerate(_candidates(logits, living, trees, rules, width + spare)):
            request = living[row][0].request
            alive, over, cut = _parted(living[row], candidates, rules)
            if over:
                ended[request.index] = _kept(ended[request.index] + over, rules)
            if _decided([partial for _, partial in alive], ended[request.index], rules):
                yield request.index, _ranked(ended.pop(request.index), cut, rules)
            else:
                rows.append(row)
                grown.append(alive)
        trees.select(rows)
        widest = max(map(len, grown), default=0)
        grown = [[*alive, *[_dead(alive[0])] * (widest - len(alive))] for alive in grown]
        living = [[partial for _, partial in alive] for alive in grown]
        said = [[partial.chosen[-1] for partial in texts] for texts in living]
        logits = trees.next_logits([[leaf for leaf, _ in alive] for alive in grown], said) if living else None


def _candidates(
    logits: Tensor, living: Sequence[Sequence[Partial]], trees: Trees, rules: Rules, n: int
) -> list[list[Candidate]]:
    """Of each input, the n best ways to go on, the best first; all that may be where a stop string can end any number of them."""
    said = [text for leaves in trees.history for text in leaves]
    values, tokens = rules.best(logits.flatten(0, 1), said, [partial for texts in living for partial in texts], n)
    before = torch.tensor([[partial.log_probability for partial in texts] for texts in living], dtype=torch.float64)
    totals = (values.cpu().view(*before.shape, -1) + before[..., None]).flatten(1)
    totals, order = totals.sort(dim=-1, descending=True, stable=True)
    n = totals.shape[1] if rules.options.stop else n
    tokens, leaves = tokens.cpu().view(len(living), -1).gather(1, order), order // values.shape[1]
    found = zip(leaves[:, :n].tolist(), tokens[:, :n].tolist(), totals[:, :n].tolist(), strict=True)
    return [[one for one in zip(*row, strict=True) if one[2] != float("-inf")] for row in found]


def _parted(
    texts: Sequence[Partial], candidates: Sequence[Candidate], rules: Rules
) -> tuple[list[tuple[int, Partial]], list[Partial], list[Partial]]:
    """The best that go on, as many as beams; and of the best as many candidates as beams, those that end, and those that do not."""
    width = rules.options.beam
    alive: list[tuple[int, Partial]] = []
    over: list[Partial] = []
    cut: list[Partial] = []
    for rank, (leaf, token, total) in enumerate(candidates):
        partial = Partial(texts[leaf].request, (*texts[leaf].chosen, token), total)
        end = rules.ended(partial)
        if rank < width:
            (over if end else cut).append(partial)
        if not end:
            alive.append((leaf, partial))
        if len(alive) == width and rank + 1 >= width:
            break
    return alive, over, cut


def _dead(candidate: tuple[int, Partial]) -> tuple[int, Partial]:
    """Fills a tree up that has fewer leaves than others."""
    leaf, partial = candidate
    return leaf, Partial(partial.request, partial.chosen, float("-inf"))


def _decided(alive: list[Partial], ended: list[Partial], rules: Rules) -> bool:
    """Nothing lives, the limit is reached, or no living text can still beat the worst of the n_best ended ones; or as the other ways of
    `stopping` have it: when as many as the beam is wide have ended, or no living text would beat the worst of those if it ended now.
    """
    if not alive or len(alive[0].chosen) >= alive[0].request.limit:
        return True
    o, length = rules.options, len(alive[0].chosen)
    if len(ended) < _needed(rules) or o.stopping == "full":
        return len(ended) >= _needed(rules)
    if o.stopping == "never":
        length = alive[0].request.limit if o.length_penalty > 0 else length + 1
    return rules.score(max(partial.log_probability for partial in alive), length) <= _score(ended[-1], rules)


def _needed(rules: Rules) -> int:
    """How many ended texts decide."""
    return rules.options.n_best if rules.options.stopping == "never" else rules.options.beam


def _kept(ended: list[Partial], rules: Rules) -> list[Partial]:
    """Those of the ended texts that can still be returned or decide, the best first."""
    return sorted(ended, key=lambda partial: -_score(partial, rules))[: _needed(rules)]


def _score(partial: Partial, rules: Rules) -> float:
    return rules.score(partial.log_probability, len(partial.chosen))


def _ranked(ended: list[Partial], cut: list[Partial], rules: Rules) -> list[Hypothesis]:
    """The n_best by score: of the ended ones and, at the limit, of those it cuts off."""
    at_limit = bool(cut) and len(cut[0].chosen) >= cut[0].request.limit
    pool = [(partial, True) for partial in ended]
    pool += [(partial, False) for partial in cut] if at_limit or len(pool) < rules.options.n_best else []
    pool.sort(key=lambda one: -_score(one[0], rules))
    return [rules.hypothesis(partial, finished) for partial, finished in pool[: rules.options.n_best]]
