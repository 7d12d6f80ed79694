"""Speaking: cached = uncached, the same in any company, prefixes, limits, stop strings, seeds, streaming,
errors.
"""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speaking import BOS, EOS, PAD, Bigram, Letters, assert_same, tiny
from torch import Tensor, nn

from pellucid.errors import DataError, UserError
from pellucid.generation.hypotheses import Hypothesis
from pellucid.generation.options import GenerationOptions
from pellucid.generation.search import _batches, _requests, generate, stream
from pellucid.generation.speakers import speaker_of

FAMILIES = ["gpt", "seq2seq"]
POSITIONS = ["sinusoidal", "learned", "rotary", "alibi", "t5"]
texts = st.lists(st.lists(st.integers(3, 8), max_size=12), min_size=1, max_size=6)


@torch.no_grad()
def fresh_logits(model: nn.Module, ids: list[int], said: list[int]) -> Tensor:
    """Logits of the next token: no cache, no padding, no company."""
    if model.config.family == "gpt":
        return model(torch.tensor([(ids or [BOS]) + said]))[0, -1]
    source = torch.tensor([ids or [PAD]])
    keep = torch.full(source.shape, bool(ids))
    return model(source, torch.tensor([[BOS, *said]]), keep)[0, -1]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(FAMILIES), st.sampled_from(POSITIONS), texts, st.integers(0, 99), st.data())
def test_speakers_agree_with_reading_afresh(family: str, positions: str, inputs: list, seed: int, data) -> None:  # type: ignore[no-untyped-def]
    """Cached, padded, reordered, repeated and dropped rows give the logits of each text alone."""
    model = tiny(family, seed, positions=positions)
    speaker = speaker_of(model)(model, inputs, [[]] * len(inputs))
    rows: list[tuple[list[int], list[int]]] = [(ids, []) for ids in inputs]
    said = None
    for _ in range(6):
        logits = speaker.next_logits(said)
        for row, (ids, before) in zip(logits, rows, strict=True):
            reference = fresh_logits(model, ids, before)
            assert (row - reference).abs().max() <= 1e-5 * max(1, reference.abs().max())
        picked = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=6))
        speaker.select(picked)
        said = data.draw(st.lists(st.integers(2, 8), min_size=len(picked), max_size=len(picked)))
        rows = [(rows[row][0], [*rows[row][1], token]) for row, token in zip(picked, said, strict=True)]


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(FAMILIES),
    texts,
    st.integers(0, 99),
    st.sampled_from(
        [{}, {"beam": 3, "n_best": 2}, {"temperature": 1.0}, {"temperature": 0.7, "top_k": 4, "top_p": 0.9}]
    ),
    st.sampled_from([1.0, 1.3]),
)
@pytest.mark.slow
def test_a_row_alone_is_the_same_in_any_batch(family: str, inputs: list, seed: int, how: dict, penalty: float) -> None:
    options = GenerationOptions(max_new=12, seed=seed, repetition_penalty=penalty, **how)
    model = tiny(family, seed)
    together = generate(model, inputs, options)
    for batch_tokens in (1, 60):
        assert_same(generate(model, inputs, options, batch_tokens=batch_tokens), together)
    alone = [generate(model, [ids], options, first_index=i)[0] for i, ids in enumerate(inputs)]
    assert_same(alone, together)
    for best in together:
        assert not {PAD, BOS, EOS} & {token for h in best for token in h.ids}
        assert all(h.finished or len(h.ids) == 12 for h in best)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_a_full_context_keeps_its_last_half(positions: str) -> None:
    model = tiny("gpt", 5, max_length=10, positions=positions)
    with torch.no_grad():
        model.head.weight[EOS] = 0
    inputs = [[3, 4], list(range(3, 9)) * 4, [5] * 10, [7] * 11]
    got = generate(model, inputs, GenerationOptions(max_new=25))
    for ids, (best,) in zip(inputs, got, strict=True):
        seen, said = ids, []
        while len(said) < 25:
            seen = seen if len(seen) <= 10 else seen[-5:]
            logits = fresh_logits(model, seen, [])
            logits[[PAD, BOS]] = -torch.inf
            token = int(logits.argmax())
            if token == EOS:
                break
            said, seen = [*said, token], [*seen, token]
        assert best.ids == said


def test_padding_never_fills_the_position_table() -> None:
    """A long text that ends early leaves a short one room to go on."""
    table = [[0.0] * 5 for _ in range(5)]
    table[3][2] = table[4][4] = table[BOS][4] = 1.0  # a ends at once, b goes on for ever
    model = Bigram(table, max_length=12)
    lengths: list[int] = []
    hidden = model.hidden

    def watched(ids: Tensor, keep: Tensor | None, cache) -> Tensor:  # type: ignore[no-untyped-def]
        lengths.append(cache.length + ids.shape[1])
        return hidden(ids, keep, cache)

    model.hidden = watched  # type: ignore[method-assign]
    got = generate(model, [[3] * 11, [3, 4]], GenerationOptions(max_new=9))
    assert [best[0].ids for best in got] == [[], [4] * 9]
    assert max(lengths) <= 12


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("beam", [1, 3])
def test_forced_prefixes_start_the_output(family: str, beam: int) -> None:
    model, options = tiny(family, 3), GenerationOptions(max_new=6, beam=beam)
    prefixes = [[], [7], [8, 8, 3]]
    got = generate(model, [[4, 5]] * 3, options, prefixes=prefixes)
    for prefix, best in zip(prefixes, got, strict=True):
        assert best[0].ids[: len(prefix)] == prefix
        alone = generate(model, [[4, 5]], options, prefixes=[prefix])
        assert_same([best], alone)
    if family == "gpt":
        assert got[2][0].ids[3:] == generate(model, [[4, 5, 8, 8, 3]], options)[0][0].ids


def test_limits_of_learned_positions() -> None:
    model = tiny("seq2seq", 1, max_length=6, positions="learned")
    with torch.no_grad():
        model.head.weight[EOS] = 0
    got = generate(model, [[3] * 6, [4]], GenerationOptions(max_new=50), prefixes=[[], [5, 5]])
    assert all(len(best[0].ids) <= 6 for best in got)
    with pytest.raises(DataError, match="input 2 has 7 tokens"):
        generate(model, [[3], [3] * 7])
    with pytest.raises(DataError, match="forced to start with"):
        generate(model, [[3]], prefixes=[[3] * 6])


def test_stop_strings_end_and_cut() -> None:
    model = Bigram([[1.0, 0, 0, 0, 0], [0, 0, 0, 1, 0], [1.0, 0, 0, 0, 0], [0, 0, 0, 0.2, 0.8], [0, 0, 0, 0.9, 0.1]])
    for beam in (1, 2):  # the model says abababa…
        options = GenerationOptions(max_new=9, stop=("ba", "zz"), beam=beam, length_penalty=0.0)
        (best,) = generate(model, [[]], options, Letters())[0]
        assert (best.text, best.ids, best.finished) == ("a", [3, 4, 3], True)
        assert "".join(stream(model, [], Letters(), options)) == "a"
    (best,) = generate(model, [[]], dataclasses.replace(options, beam=1), Letters(), prefixes=[[3, 4, 3]])[0]
    assert best.text == "aba"  # what stops stands after the prefix
    with pytest.raises(UserError, match="tokenizer"):
        generate(model, [[]], options)


@pytest.mark.parametrize("how", [{}, {"temperature": 1.0}, {"beam": 2}])
def test_streams_say_what_generate_returns(how: dict) -> None:
    model, options = tiny("gpt", 4), GenerationOptions(max_new=20, stop=("aaaa", "q"), **how)
    heard: list[tuple[int, int]] = []
    got = generate(model, [[4], [], [5, 6]], options, Letters(), on_token=lambda *event: heard.append(event))
    for index, best in enumerate(got):
        assert [token for i, token in heard if i == index] == best[0].ids
    assert "".join(stream(model, [4], Letters(), options)) == got[0][0].text
    assert len(list(stream(model, [4], Letters(), options, prefix=[7]))) >= 1


def test_seeds_and_the_score() -> None:
    model, options = tiny("gpt", 0), GenerationOptions(max_new=8, temperature=1.5, seed=3)
    first = generate(model, [[4]] * 8, options)
    assert first == generate(model, [[4]] * 8, options)
    assert len({tuple(best[0].ids) for best in first}) > 1
    assert first != generate(model, [[4]] * 8, dataclasses.replace(options, seed=4))
    best = first[0][0]
    chosen = [*best.ids, EOS] if best.finished else best.ids
    total = 0.0
    for t, token in enumerate(chosen):
        logits = fresh_logits(model, [4], chosen[:t])
        total += logits.log_softmax(-1)[token].item()
    assert best.score == pytest.approx(total / len(chosen), abs=1e-5)


def test_modes_are_as_they_were_and_dropout_is_off() -> None:
    model = tiny("gpt", 2).train()
    model.stack.blocks[0].eval()
    model.embed.register_forward_hook(
        lambda module, *_: None if not module.training else pytest.fail("in training mode")
    )
    generate(model, [[3]], GenerationOptions(max_new=2))
    assert model.training and model.stack.blocks[1].training and not model.stack.blocks[0].training


def test_batches_hold_each_request_once_and_keep_to_the_limit() -> None:
    inputs = [[3] * n for n in (1, 9, 4, 4, 30, 2)]
    requests = _requests(tiny("gpt"), inputs, None, GenerationOptions(max_new=5), 0)
    batches = list(_batches(requests, 2, 60))
    assert sorted(r.index for batch in batches for r in batch) == list(range(6))
    for batch in batches:
        assert len(batch) == 1 or 2 * len(batch) * max(len(r.ids) + r.limit for r in batch) <= 60


def test_what_cannot_be_is_said_plainly() -> None:
    model = tiny("gpt")
    for options, word in (
        ({"beam": 2, "temperature": 1.0}, "sample"),
        ({"n_best": 2}, "n_best"),
        ({"max_new": 0}, "max_new"),
        ({"top_p": 0.0}, "top_p"),
        ({"stop": ("",)}, "stop"),
    ):
        with pytest.raises(UserError, match=word):
            GenerationOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="input 1 has token 99"):
        generate(model, [[99]])
    with pytest.raises(UserError, match="one prefix per input"):
        generate(model, [[3]], prefixes=[])
    model.config = dataclasses.replace(model.config, bos_id=None, eos_id=None)
    with pytest.raises(DataError, match="neither"):
        generate(model, [[]])
    model.config = dataclasses.replace(model.config, family="bert")
    with pytest.raises(DataError, match="bert"):
        generate(model, [[3]])
    broken = tiny("gpt")
    with torch.no_grad():
        broken.head.weight.fill_(torch.nan)
    for beam in (1, 2):
        with pytest.raises(DataError, match="not a number"):
            generate(broken, [[3]], GenerationOptions(beam=beam))


def test_one_token_may_be_both_beginning_and_end() -> None:
    """GPT-2's <|endoftext|>: it starts an empty text and may end it."""
    model = tiny("gpt", 6)
    model.config = dataclasses.replace(model.config, bos_id=EOS, pad_id=EOS)
    with torch.no_grad():
        model.head.weight.zero_()
        if model.head.bias is None:
            model.head.bias = nn.Parameter(torch.zeros(9))
        model.head.bias[EOS] = 1
    assert generate(model, [[]])[0] == [Hypothesis([], pytest.approx(-0.9, abs=0.6), True)]


def test_no_inputs_no_outputs() -> None:
    assert generate(tiny("gpt"), []) == []


class Spaced(Letters):
    """Words stand apart: what a token adds depends on whether it is the first."""

    def __init__(self) -> None:
        self.ids: list[int] = []

    def decode(self, ids: list[int]) -> str:
        return " ".join(Letters.decode(self, [token]) for token in ids if token > EOS)

    def stream(self) -> "Spaced":
        return Spaced()

    def push(self, token: int) -> str:
        before = len(self.decode(self.ids))
        self.ids.append(token)
        return self.decode(self.ids)[before:]


def test_a_completion_is_decoded_after_its_prompt_and_an_answer_alone() -> None:
    options = GenerationOptions(max_new=4)
    for family in FAMILIES:
        model = tiny(family, 4)
        (best,) = generate(model, [[5, 6]], options, Spaced(), prefixes=[[3]])[0]
        assert best.text == (" " if family == "gpt" else "") + Spaced().decode(best.ids)
        assert "".join(stream(model, [5, 6], Spaced(), options, prefix=[3])) == best.text


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=10, deadline=None)
@given(inputs=texts, seed=st.integers(0, 99), beam=st.sampled_from([1, 3]))
def test_deterministic_in_bfloat16_is_the_same_in_any_company(family: str, inputs: list, seed: int, beam: int) -> None:
    model = tiny(family, seed).bfloat16()
    options = GenerationOptions(max_new=6, beam=beam, deterministic=True)
    together = generate(model, inputs, options)
    for ids, best in zip(inputs, together, strict=True):
        assert best == generate(model, [ids], options)[0]


bent = st.fixed_dictionaries(
    {
        "min_new": st.integers(0, 9),
        "no_repeat": st.integers(0, 3),
        "force_end": st.booleans(),
        "beam": st.sampled_from([1, 3]),
    }
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FAMILIES), texts, st.integers(0, 99), st.integers(1, 9), bent)
def test_what_depends_on_length_and_on_what_was_said(
    family: str, inputs: list, seed: int, limit: int, how: dict
) -> None:  # type: ignore[type-arg]
    """No end too early, no run of tokens twice unless there was it before, and at the limit an end; alone as in company."""
    model = tiny(family, seed, vocab_size=30)
    options = GenerationOptions(max_new=limit, **how)
    found = generate(model, inputs, options)
    assert_same([generate(model, [ids], options)[0] for ids in inputs], found)
    for ids, (best,) in zip(inputs, found, strict=True):
        assert len(best.ids) >= min(how["min_new"], limit - how["force_end"])
        assert not how["force_end"] or (best.finished and len(best.ids) < limit)
        whole, n = [*(ids or [BOS] if family == "gpt" else [BOS]), *best.ids], how["no_repeat"]
        runs = [tuple(whole[i : i + n]) for i in range(len(whole) - n + 1)] if n else []
        first = len(whole) - len(best.ids) - n + 1  # runs from here on end in what was said
        assert all(run not in runs[:i] for i, run in enumerate(runs) if i >= first)
