"""BERT: an encoder alone, every token looks at every other (Devlin et al. 2019)."""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.models.config import ModelConfig
from pellucid.models.inputs import make_embedding, make_relative, make_tokens, refuse_too_long
from pellucid.parts.cache import positions_of
from pellucid.parts.embeddings import Tokens
from pellucid.parts.heads import ACTIVATIONS, LabelHead, MaskedWordHead, Pooler, StatesHead, TagHead
from pellucid.parts.masks import Mask
from pellucid.parts.norms import make_norm
from pellucid.parts.shapes import Ids, Keep, States
from pellucid.parts.stack import Block, Stack

HEADS: dict[str, Callable[[ModelConfig, Tokens], nn.Module]] = {
    "words": lambda c, tokens: MaskedWordHead(
        tokens, make_norm(c.stack.norm, c.stack.d_model), ACTIVATIONS.get(c.stack.feedforward, F.gelu)
    ),
    "labels": lambda c, tokens: LabelHead(c.stack.d_model, c.n_labels, c.stack.dropout.residual, c.pooler),
    "tags": lambda c, tokens: TagHead(c.stack.d_model, c.n_labels, c.stack.dropout.residual),
    "vector": lambda c, tokens: Pooler(c.stack.d_model, c.pooler),
    "states": lambda c, tokens: StatesHead(),
}


class BERT(nn.Module):
    """What it says is the head's: logits of words or of tags at each place, of labels of the text, or one vector a text."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, c, d = config, config, config.stack.d_model
        segments = Tokens(c.n_segments, d) if c.n_segments else None
        self.embed = make_embedding(c, make_tokens(c, c.vocab_size), segments, make_norm(c.stack.norm, d))
        self.stack = Stack(c.stack, partial(Block, heads=c.heads), make_relative(c, bidirectional=True))
        self.head = HEADS[c.head](c, self.embed.tokens)

    def forward(self, ids: Ids, keep: Keep | None = None, segments: Ids | None = None) -> Tensor:
        """[B,T] to logits: of words [B,T,V], tags [B,T,n_labels], labels [B,n_labels]; vectors [B,D]; or states. keep True on real
        tokens; segments 0 or 1."""
        return self.head(self.hidden(ids, keep, segments), keep)

    def hidden(self, ids: Ids, keep: Keep | None = None, segments: Ids | None = None) -> States:
        """The states [B,T,D]."""
        positions, keys = positions_of(keep, ids.shape[1], 0, ids.device)
        refuse_too_long(self.config, ids.shape[1])
        mask = Mask(window=self.config.window, keep=keep)
        return self.stack(self.embed(ids, positions, segments), positions, keys, mask=mask)
