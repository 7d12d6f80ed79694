"""How a model reads a text: which tokens stand around it, family by family, and rows of ids as one tensor."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pellucid.data.tokenised import Ragged
from pellucid.models.config import ModelConfig
from pellucid.text.tokenizer import Tokenizer


def around(tokenizer: Tokenizer, config: ModelConfig) -> tuple[list[int], list[int]]:
    """What stands before and behind a text that is asked, as in training: a BERT's <bos> and <eos>; of a decoder what its prompts have;
    of an encoder-decoder what its tokenizer puts around sources."""
    if config.family == "bert":
        return [config.bos_id or 0], [config.eos_id or 0]
    return tokenizer.edges if config.family == "seq2seq" else tokenizer.prompt_edges


def asked(texts: Sequence[str], tokenizer: Tokenizer, config: ModelConfig) -> list[list[int]]:
    """Texts as generation is given them."""
    before, behind = around(tokenizer, config)
    return [[*before, *row, *behind] for row in tokenizer.encode_batch(list(texts))]


def read(
    texts: Sequence[str], tokenizer: Tokenizer, config: ModelConfig, longest: int, specials: bool = False
) -> list[list[int]]:
    """Texts as they are looked at, not answered: at most `longest` tokens each, at least one. specials: names of special tokens count."""
    before, behind = around(tokenizer, config)
    behind = [] if config.family == "gpt" else behind
    room = longest - len(before) - len(behind)
    rows = [[*before, *row[:room], *behind] for row in tokenizer.encode_batch(list(texts), specials)]
    return [row or [config.eos_id or 0] for row in rows]


def padded(rows: Sequence[Sequence[int]], config: ModelConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """ids [B,T], padded to the right, and keep [B,T]: True on real tokens."""
    ids, keep = Ragged.of(rows).padded(np.arange(len(rows)))
    ids[~keep] = config.pad_id or 0
    return torch.from_numpy(ids).to(device), torch.from_numpy(keep).to(device)
