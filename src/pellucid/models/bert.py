"""BERT: an encoder alone, every token looks at every other (Devlin et al. 2019)."""

from torch import Tensor, nn

from pellucid.models.config import ModelConfig
from pellucid.models.inputs import make_embedding, refuse_too_long
from pellucid.parts.cache import positions_of
from pellucid.parts.embeddings import Tokens
from pellucid.parts.heads import MaskedWordHead, Pooler
from pellucid.parts.masks import Mask
from pellucid.parts.norms import make_norm
from pellucid.parts.shapes import Ids, Keep, Logits, States
from pellucid.parts.stack import Stack, make_relative


class BERT(nn.Module):
    """Masked words from `forward`; `hidden` for states, `pooled` for one vector a text; `classify` where n_labels > 0."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, c, d = config, config, config.stack.d_model
        self.embed = make_embedding(c, c.vocab_size, Tokens(c.n_segments, d), make_norm(c.stack.norm, d))
        self.stack = Stack(c.stack, relative=make_relative(c.positions, c.stack, True, c.rope_base, c.rope_scaling))
        self.pool = Pooler(d)
        self.head = MaskedWordHead(self.embed.tokens, make_norm(c.stack.norm, d))
        self.classifier = nn.Linear(d, c.n_labels) if c.n_labels else nn.Identity()

    def forward(self, ids: Ids, keep: Keep | None = None, segments: Ids | None = None) -> Logits:
        """[B,T] to logits [B,T,V] of the word at each place. keep True on real tokens; segments 0 or 1."""
        return self.head(self.hidden(ids, keep, segments))

    def hidden(self, ids: Ids, keep: Keep | None = None, segments: Ids | None = None) -> States:
        """The states [B,T,D]."""
        positions, keys = positions_of(keep, ids.shape[1], 0, ids.device)
        refuse_too_long(self.config, ids.shape[1])
        return self.stack(self.embed(ids, positions, segments), positions, keys, mask=Mask(keep=keep))

    def pooled(self, ids: Ids, keep: Keep | None = None, segments: Ids | None = None) -> Tensor:
        """One vector a text [B,D], from its first token."""
        return self.pool(self.hidden(ids, keep, segments))

    def classify(self, ids: Ids, keep: Keep | None = None, segments: Ids | None = None) -> Tensor:
        """Logits of the labels [B,n_labels]."""
        return self.classifier(self.pooled(ids, keep, segments))
