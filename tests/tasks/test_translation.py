"""Translation: the loss is the plain one, and each number of an evaluation is what a person would count by hand."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.data.files import Example
from pellucid.data.pairs import Edges, PairData
from pellucid.data.tokenised import Ragged
from pellucid.generation.options import GenerationOptions
from pellucid.models.config import ModelConfig
from pellucid.tasks import metrics
from pellucid.tasks.translation import Held, Translation, judge, seq2seq, translate
from pellucid.text.tokenizer import Tokenizer, train
from tests.families import SEQ2SEQS, make
from tests.tasks.toys import Head, Past

GREEDY = GenerationOptions(max_new=20)


class Echo(nn.Module):
    """Says its source again and then <eos>, each token with probability 1/2: one bit a token."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        n = tokenizer.vocab_size
        rest = torch.full((n, n), 0.5 / (n - 1)).fill_diagonal_(0.5)
        self.table = nn.Parameter(rest.log())
        ids = {"pad_id": tokenizer.pad_id, "bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id}
        self.config = ModelConfig("seq2seq", vocab_size=n, **ids)
        self.head = Head()

    def encode(self, source: Tensor, keep: Tensor) -> Tensor:
        end = torch.full_like(source[:, :1], self.config.eos_id or 0)
        return torch.cat((source.masked_fill(~keep, self.config.eos_id or 0), end), 1)[..., None].float()

    def decode(
        self, ids: Tensor, memory: Tensor, memory_keep: Tensor, keep: Tensor | None = None, cache: Past | None = None
    ) -> Tensor:
        start = cache.length if cache else 0
        if cache:
            cache.length += ids.shape[1]
        places = (torch.arange(ids.shape[1]) + start).clamp(max=memory.shape[1] - 1)
        return self.table[memory[:, places, 0].long()]

    def new_cache(self) -> Past:
        return Past()


def held(tokenizer: Tokenizer, examples: Sequence[Example]) -> Held:
    sides = [[example.source for example in examples], [example.target for example in examples]]
    return Held(list(examples), *(Ragged.of(tokenizer.encode_batch(side)) for side in sides))


@pytest.fixture(scope="module")
def letters() -> Tokenizer:
    return train(["abcdefgh äß"], "char")


@pytest.fixture
def echo(letters: Tokenizer) -> nn.Module:
    return Echo(letters).eval()


EXAMPLES = [
    Example("abc", "abc", "plain"),
    Example("gäß", "gäß", "umlauts"),
    Example("hab", "hab", "plain"),
    Example("bad", "bag", "plain"),
]


def test_evaluate_counts_what_a_person_would(letters: Tokenizer, echo: nn.Module) -> None:
    result = judge(echo, held(letters, EXAMPLES[:3]), letters, GREEDY, seq2seq(letters), with_bleu=False).numbers()
    assert result["exact_match"] == 1.0 and result["examples"] == 3
    assert result["groups"] == {"plain": 1.0, "umlauts": 1.0}
    assert result["loss"] == pytest.approx(math.log(2)) and result["perplexity"] == pytest.approx(2)
    said = 3 * 4  # three letters and <eos>, one bit each; the text has 3 + 5 + 3 bytes
    assert result["bits_per_byte"] == pytest.approx(said / 11)


def test_wrong_answers_are_counted_in_their_group(letters: Tokenizer, echo: nn.Module) -> None:
    result = judge(echo, held(letters, EXAMPLES), letters, GREEDY, seq2seq(letters), with_bleu=False).numbers()
    assert result["exact_match"] == 0.75
    assert result["groups"] == {"plain": pytest.approx(2 / 3), "umlauts": 1.0}
    nothing = [Example(e.source, e.target) for e in EXAMPLES]
    assert (
        "groups"
        not in judge(echo, held(letters, nothing), letters, GREEDY, seq2seq(letters), with_bleu=False).numbers()
    )


def test_answers_come_in_the_order_of_their_sources(letters: Tokenizer, echo: nn.Module) -> None:
    sources = ["a", "hgfedcba", "bcd", "ä ß", "h"]
    assert translate(echo, letters.encode_batch(sources), letters, GREEDY, seq2seq(letters)) == sources


def test_the_first_of_the_held_out(letters: Tokenizer) -> None:
    some = held(letters, EXAMPLES)
    assert some.first(None) is some and some.first(0) is some and some.first(9) is some
    two = some.first(2)
    assert [e.source for e in two.examples] == ["abc", "gäß"] and len(two.sources) == len(two.targets) == 2
    assert two.sources[1].tolist() == some.sources[1].tolist()


def test_the_task_shows_numbers_and_samples(letters: Tokenizer, echo: nn.Module) -> None:
    task = Translation(held(letters, EXAMPLES[::-1]), letters, GREEDY, seq2seq(letters), "exact_match")
    assert (
        task.higher_is_better
        and not Translation(held(letters, EXAMPLES), letters, GREEDY, seq2seq(letters)).higher_is_better
    )
    assert task.judge(echo).numbers()["exact_match"] == 0.75
    assert task.samples(echo) == ["bad → bad   (should be: bag)", "hab → hab", "gäß → gäß"]


def test_bleu_is_sacrebleus(letters: Tokenizer, echo: nn.Module) -> None:
    pytest.importorskip("sacrebleu")
    same = [Example("a b c d e", "a b c d e"), Example("h g f e", "h g f e")]
    result = judge(echo, held(letters, same), letters, GREEDY, seq2seq(letters)).numbers()
    assert result["bleu"] == pytest.approx(100) and result["chrf"] == pytest.approx(100)
    assert "tok:13a" in result["bleu_signature"]


def test_what_was_never_asked_has_no_number() -> None:
    one = np.arange(1)
    assert math.isnan(metrics.exact_match([], [])(np.arange(0))) and math.isnan(
        metrics.of_loss([0.0], [0])["loss"](one)
    )
    assert math.isfinite(metrics.of_loss([1e9], [1], [1])["perplexity"](one))


# --- the loss of real models ----------------------------------------------------------------------------------------


def data(batch_tokens: int = 60) -> PairData:
    random = torch.Generator().manual_seed(0)

    def rows() -> Ragged:
        sizes = torch.randint(1, 9, (12,), generator=random).tolist()
        return Ragged.of([torch.randint(3, 17, (n,), generator=random).tolist() for n in sizes])

    return PairData(rows(), rows(), Edges(0, [1], 2), batch_tokens=batch_tokens)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", SEQ2SEQS)
def test_the_loss_is_cross_entropy_over_real_targets(letters: Tokenizer, name: str, smoothing: float) -> None:
    model, batch = make(name), data().batch(0)
    task = Translation(held(letters, EXAMPLES), letters, GREEDY, seq2seq(letters), label_smoothing=smoothing)
    logits = model(batch["source"], batch["target_in"], batch["source_keep"])
    targets = batch["target_out"].masked_fill(~batch["target_keep"], -100)
    plain = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum", label_smoothing=smoothing)
    ours = task.loss(model, batch)
    assert task.count(batch) == int((targets != -100).sum())
    torch.testing.assert_close(ours, plain)
    parameters = list(model.parameters())
    for a, b in zip(*(torch.autograd.grad(loss, parameters) for loss in (ours, plain)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SEQ2SEQS)
def test_accumulated_is_the_big_batch(letters: Tokenizer, name: str) -> None:
    """Law 6: rows are padded otherwise in a small batch, and the gradients are the same."""
    model, pairs = make(name), data(10**6)
    task = Translation(held(letters, EXAMPLES), letters, GREEDY, seq2seq(letters), label_smoothing=0.1)
    whole = pairs.batch(0)
    parameters = list(model.parameters())
    big = torch.autograd.grad(task.loss(model, whole) / task.count(whole), parameters)
    for p in parameters:
        p.grad = None
    rows = pairs.rows(0)
    assert len(rows) == 12
    for part in (rows[0::3], rows[1::3], rows[2::3]):
        (task.loss(model, pairs.collate(part)) / task.count(whole)).backward()
    for p, gradient in zip(parameters, big, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-4, atol=1e-6)
