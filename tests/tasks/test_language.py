"""Language modelling: the loss is the plain one; an evaluation scores each token once; bits per byte are those of the text."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.data.text import IGNORE, TextData
from pellucid.generation.options import GenerationOptions
from pellucid.models.config import ModelConfig
from pellucid.tasks.language import LanguageModel, judge
from pellucid.text.tokenizer import Tokenizer, train
from tests.families import GPTS, make
from tests.tasks.toys import Head, Past

GREEDY = GenerationOptions(max_new=10)


class Bigram(nn.Module):
    """After each token the next one in the alphabet, with probability 1/2: one bit a token."""

    def __init__(self, n: int) -> None:
        super().__init__()
        rest = torch.full((n, n), 0.5 / (n - 1)).fill_diagonal_(0.5)
        self.table = nn.Parameter(rest.roll(-1, 0).log())
        self.config = ModelConfig("gpt", vocab_size=n, pad_id=0, bos_id=1, eos_id=2)
        self.head = Head()

    def hidden(self, ids: Tensor, keep: Tensor | None = None, cache: Past | None = None) -> Tensor:
        if cache:
            cache.length += ids.shape[1]
        return self.table[ids]

    def new_cache(self) -> Past:
        return Past()


@pytest.fixture(scope="module")
def letters() -> Tokenizer:
    return train(["abcdefghijklmnopqrstuvwxyz"], "char")


def alphabet(letters: Tokenizer, n: int) -> np.ndarray:
    """a b c … in the order in which the tokenizer numbers them, over and over, without the fall from the last to the first."""
    first = len(letters.specials)
    return np.arange(first, letters.vocab_size)[:n]


def data(n: int = 50, length: int = 8, batch_size: int = 6) -> TextData:
    tokens = np.random.default_rng(0).integers(3, 17, n)
    return TextData(tokens, length, batch_size)


@pytest.mark.parametrize("length", [1, 4, 7, 25])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_evaluate_scores_each_token_once(letters: Tokenizer, length: int, batch_size: int) -> None:
    """Windows and batches cut the text anyhow; 26 tokens have 25 targets of one bit each, here of two bytes each."""
    text = TextData(alphabet(letters, 26), length, batch_size)
    result = judge(Bigram(letters.vocab_size).eval(), text, bytes_per_token=2.0).numbers()
    assert result["examples"] == 25 and result["loss"] == pytest.approx(math.log(2))
    assert result["perplexity"] == pytest.approx(2) and result["bits_per_byte"] == pytest.approx(0.5)


@pytest.mark.parametrize(("limit", "windows"), [(1, 1), (2, 2), (3, 3), (5, 5), (None, 6)])
def test_a_limit_counts_windows(letters: Tokenizer, limit: int | None, windows: int) -> None:
    text = TextData(alphabet(letters, 25), 4, 2)  # six windows, two a batch
    assert judge(Bigram(letters.vocab_size).eval(), text, 1.0, limit).numbers()["examples"] == 4 * windows


def test_the_task_shows_numbers_and_a_sample(letters: Tokenizer) -> None:
    model = Bigram(letters.vocab_size).eval()
    task = LanguageModel(TextData(alphabet(letters, 26), 5, 2), 1.0, letters, GREEDY)
    assert not task.higher_is_better and task.judge(model).numbers()[task.metric] == pytest.approx(math.log(2))
    begin = alphabet(letters, 18).tolist()
    assert task.samples(model) == [letters.decode(begin)], "eight letters of the text, and the ten that follow"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", GPTS)
def test_the_loss_is_cross_entropy_over_real_targets(letters: Tokenizer, name: str, smoothing: float) -> None:
    model, text = make(name), data()
    task = LanguageModel(text, 1.0, letters, GREEDY, label_smoothing=smoothing)
    batch = next(b for b in map(text.batch, range(9)) if bool((b["targets"] == IGNORE).any()))
    logits = model(batch["ids"]).flatten(0, 1)
    plain = F.cross_entropy(logits, batch["targets"].flatten(), reduction="sum", label_smoothing=smoothing)
    ours = task.loss(model, batch)
    assert task.count(batch) == int((batch["targets"] != IGNORE).sum()) < batch["targets"].numel()
    torch.testing.assert_close(ours, plain)
    parameters = list(model.parameters())
    for a, b in zip(*(torch.autograd.grad(loss, parameters) for loss in (ours, plain)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", GPTS)
def test_accumulated_is_the_big_batch(letters: Tokenizer, name: str) -> None:
    """Law 6: three small batches of unequal numbers of targets add up to the gradient of the big one."""
    model, text = make(name), data()
    task = LanguageModel(text, 1.0, letters, GREEDY)
    whole = next(b for b in map(text.batch, range(9)) if bool((b["targets"] == IGNORE).any()))
    parameters = list(model.parameters())
    big = torch.autograd.grad(task.loss(model, whole) / task.count(whole), parameters)
    for p in parameters:
        p.grad = None
    for i in range(3):
        micro = {name: rows[i::3] for name, rows in whole.items()}
        (task.loss(model, micro) / task.count(whole)).backward()
    for p, gradient in zip(parameters, big, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-4, atol=1e-6)
