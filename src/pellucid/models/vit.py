"""ViT: an encoder over the patches of an image (Dosovitskiy et al. 2021)."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from pellucid.errors import UserError
from pellucid.models.config import ModelConfig
from pellucid.parts.embeddings import BehindClass, Patches
from pellucid.parts.positions import Sinusoidal2d
from pellucid.parts.shapes import States
from pellucid.parts.stack import Block, Stack

POSITIONS: dict[str, Callable[[int, int], nn.Module | None]] = {
    "learned": lambda d_model, width: None,
    "sinusoidal2d": lambda d_model, width: BehindClass(Sinusoidal2d(d_model, width)),
}


POOLED: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


def _head(c: ModelConfig) -> nn.Module:
    """What becomes of the class token's state [B,D]. Raises UserError where it is asked for two things."""
    d = c.stack.d_model
    if c.head != "vector":
        return nn.Linear(d, c.n_labels) if c.n_labels else nn.Identity()
    if c.n_labels:
        raise UserError("a vit has labels or a pooled vector", "set model.n_labels to 0, or leave out model.head")
    return nn.Sequential(OrderedDict(dense=nn.Linear(d, d), activation=POOLED[c.pooler]()))


class ViT(nn.Module):
    """The class token's state, behind the final norm, says what the image shows."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, c = config, config
        if c.positions not in POSITIONS:
            raise UserError(f"a vit has no positions {c.positions!r}", f"choose {' or '.join(POSITIONS)}")
        side, d = c.image_size // c.patch_size, c.stack.d_model
        positions = POSITIONS[c.positions](d, side)
        self.embed = Patches(c.patch_size, c.channels, side**2, d, c.stack.dropout.embedding, positions)
        self.stack = Stack(c.stack, partial(Block, heads=c.heads))
        self.classifier = _head(c)

    def forward(self, images: Tensor) -> Tensor:
        """[B,channels,height,width] to logits [B,n_labels]; without labels to vectors [B,D]: the class token's state, pooled where the
        head is "vector"."""
        return self.classifier(self.hidden(images)[:, 0])

    def hidden(self, images: Tensor) -> States:
        """The states [B,1+P,D], the class token first."""
        x = self.embed(images)
        positions = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
        return self.stack(x, positions)
