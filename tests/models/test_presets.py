"""Published sizes, exactly, without allocating them."""

from dataclasses import replace

import pytest
import torch

from pellucid.errors import UserError
from pellucid.models.build import build, count
from pellucid.models.config import ModelConfig
from pellucid.models.presets import preset
from pellucid.parts.config import StackConfig

PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "vit-b16": 86_567_656,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name: str) -> None:
    assert count(preset(name)) == PUBLISHED[name]


def test_bert_base_without_its_heads_is_bertmodel() -> None:
    assert count(replace(preset("bert-base"), head="vector")) == 109_482_240


@pytest.mark.parametrize(("name", "size"), [("original-base", (512, 2048)), ("original-big", (1024, 4096))])
def test_the_papers_models_by_formula(name: str, size: tuple[int, int]) -> None:
    """Attention 4·D², feed-forward 2·D·F, with biases and norms, six times each, and one shared table."""
    d, f = size
    attention, feedforward, norm = 4 * d * d + 4 * d, 2 * d * f + f + d, 2 * d
    encoder, decoder = attention + feedforward + 2 * norm, 2 * attention + feedforward + 3 * norm
    assert count(preset(name)) == 6 * (encoder + decoder) + 37_000 * d


STACK = StackConfig(512, 6, 8, None, 2048, "relu", residual="post")
PAPER = ModelConfig("seq2seq", STACK, 10_000, positions="sinusoidal", scale_embedding=True, pad_id=0)
TUTORIAL = replace(PAPER, tied=False, head_bias=True, decoder_vocab_size=10_000)


@pytest.mark.slow
@pytest.mark.parametrize("config", [PAPER, TUTORIAL], ids=["paper", "tutorial"])
def test_the_whole_transformer(config: ModelConfig) -> None:
    model = build(config).eval()
    ids = torch.randint(1, 10_000, (32, 100), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert model(ids, ids).shape == (32, 100, 10_000)
    shared, table = count(PAPER), 10_000 * 512
    assert count(config) == (shared if config.tied else shared + 2 * table + 10_000)


def test_an_unknown_preset_names_the_closest() -> None:
    with pytest.raises(UserError, match="did you mean 'gpt2-medium'"):
        preset("gpt2-medum")
