"""BERT: an encoder alone, every token looks at every other (Devlin et al. 2019)."""

from collections.abc import Callable

from torch import Tensor, nn

from pellucid.models.config import ModelConfig
from pellucid.models.inputs import make_embedding, refuse_too_long
from pellucid.parts.cache import positions_of
from pellucid.parts.embeddings import Tokens
from pellucid.parts.heads import LabelHead, MaskedWordHead, Pooler, TagHead
from pellucid.parts.masks import Mask
from pellucid.parts.norms import make_norm
from pellucid.parts.shapes import Ids, Keep, States
from pellucid.parts.stack import Stack, make_relative

HEADS: dict[str, Callable[[ModelConfig, Tokens], nn.Module]] = {
    "words": lambda c, tokens: MaskedWordHead(tokens, make_norm(c.stack.norm, c.stack.d_model)),
    "labels": lambda c, tokens: LabelHead(c.stack.d_model, c.n_labels, c.stack.dropout.residual),
    "tags": lambda c, tokens: TagHead(c.stack.d_model, c.n_labels, c.stack.dropout.residual),
    "vector": lambda c, tokens: Pooler(c.stack.d_model),
}


class BERT(nn.Module):
    """What it says is the head's: logits of words or of tags at each place, of labels of the text, or one vector a text."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, c, d = config, config, config.stack.d_model
        self.embed = make_embedding(c, c.vocab_size, Tokens(c.n_segments, d), make_norm(c.stack.norm, d))
        self.stack = Stack(c.stack, relative=make_relative(c.positions, c.stack, True, c.rope_base, c.rope_scaling))
        self.head = HEADS[c.head](c, self.embed.tokens)

    def forward(self, ids: Ids, keep: Keep | None = None, segments: Ids | None = None) -> Tensor:
        """[B,T] to logits: of words [B,T,V], tags [B,T,n_labels], labels [B,n_labels]; or vectors [B,D]. keep True on real tokens;
        segments 0 or 1."""
        return self.head(self.hidden(ids, keep, segments), keep)

    def hidden(self, ids: Ids, keep: Keep | None = None, segments: Ids | None = None) -> States:
        """The states [B,T,D]."""
        positions, keys = positions_of(keep, ids.shape[1], 0, ids.device)
        refuse_too_long(self.config, ids.shape[1])
        return self.stack(self.embed(ids, positions, segments), positions, keys, mask=Mask(keep=keep))
