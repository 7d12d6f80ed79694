"""Embeddings: token ids, segments and image patches to states, with what tells their places added."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.parts.dropout import Dropout
from pellucid.parts.positions import Learned
from pellucid.parts.shapes import Ids, Positions, States


class _Untrained(torch.autograd.Function):
    """The table as it is; on the way back one row gets no gradient."""

    @staticmethod
    def forward(ctx, table: Tensor, row: int) -> Tensor:  # type: ignore[no-untyped-def, override]
        ctx.row = row
        return table.view_as(table)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def, override]
        gradient = gradient.clone()
        gradient[ctx.row] = 0
        return gradient, None


class Tokens(nn.Module):
    """A table of vectors, one per token. The row of `pad_id` is zero and is never trained, also where a tied head reads the table."""

    def __init__(self, vocab_size: int, d_model: int, pad_id: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, d_model))
        self.pad_id = pad_id
        nn.init.normal_(self.weight)
        with torch.no_grad():
            self.weight[pad_id if pad_id is not None else []] = 0

    @classmethod
    def from_pretrained(cls, vectors: Tensor, freeze: bool = True, pad_id: int | None = None) -> "Tokens":
        """Start from vectors [V,D] (GloVe, word2vec, …); freeze = never train them."""
        table = cls(vectors.shape[0], vectors.shape[1], pad_id)
        with torch.no_grad():
            table.weight.copy_(vectors)
            if pad_id is not None:
                table.weight[pad_id] = 0
        table.weight.requires_grad_(not freeze)
        return table

    def table(self) -> Tensor:
        """The weights [V,D] for a head to read: as they are, but the padding row takes no gradient."""
        return self.weight if self.pad_id is None else _Untrained.apply(self.weight, self.pad_id)

    def forward(self, ids: Ids) -> States:
        """[B,T] to [B,T,D]."""
        return F.embedding(ids, self.weight, padding_idx=self.pad_id)

    def extra_repr(self) -> str:
        return "{}, {}, pad_id={}".format(*self.weight.shape, self.pad_id)


class Nowhere(nn.Module):
    """The unused slot of absolute positions: adds nothing."""

    def forward(self, positions: Positions) -> float:
        """0, whatever the positions."""
        return 0.0


class Embedding(nn.Module):
    """dropout(norm(scale * tokens + segments + positions)): each slot may be unused. scaled: by √d_model (Vaswani et al. 2017,
    section 3.4).
    """

    def __init__(
        self,
        tokens: Tokens,
        positions: nn.Module | None = None,
        segments: nn.Module | None = None,
        norm: nn.Module | None = None,
        scaled: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.tokens, self.positions, self.segments = tokens, positions or Nowhere(), segments or Nowhere()
        self.norm, self.dropout = norm or nn.Identity(), Dropout(dropout)
        self.scale = math.sqrt(tokens.weight.shape[1]) if scaled else 1.0

    def forward(self, ids: Ids, positions: Positions, segments: Ids | None = None) -> States:
        """ids [B,T], positions [B|1,T], segments [B,T] (None = all 0) -> [B,T,D]."""
        segments = torch.zeros_like(ids) if segments is None else segments
        tokens = self.tokens(ids) * self.scale
        x = (tokens + self.segments(segments) + self.positions(positions)).to(
            tokens.dtype
        )  # in BERT's order, to the last bit
        return self.dropout(self.norm(x))


class BehindClass(nn.Module):
    """Positions of patches behind a class token, which has none (He et al. 2022)."""

    def __init__(self, positions: nn.Module) -> None:
        super().__init__()
        self.patches = positions

    def forward(self, positions: Positions) -> Tensor:
        """Places [B|1,1+P], the class token's first, to vectors [B|1,1+P,D]."""
        return F.pad(self.patches(positions[:, 1:] - 1), (0, 0, 1, 0))


class Patches(nn.Module):
    """Square patches of an image, each flattened and projected (Dosovitskiy et al. 2021, section 3.1), behind one trained class token.
    positions: of the class token and the patches; None = learned."""

    def __init__(
        self,
        patch_size: int,
        channels: int,
        n_patches: int,
        d_model: int,
        dropout: float = 0.0,
        positions: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, d_model, patch_size, stride=patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.positions = positions or Learned(n_patches + 1, d_model)
        self.dropout = Dropout(dropout)

    def forward(self, images: Tensor) -> States:
        """[B,channels,height,width] to [B,1+P,D], patches row by row."""
        x = self.project(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        places = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
        return self.dropout((x + self.positions(places)).to(x.dtype))
