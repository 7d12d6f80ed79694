"""ViT: an encoder over the patches of an image (Dosovitskiy et al. 2021)."""

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
        self.classifier = nn.Linear(c.stack.d_model, c.n_labels) if c.n_labels else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """[B,channels,height,width] to logits [B,n_labels] (the class token's state [B,D] where n_labels is 0)."""
        return self.classifier(self.hidden(images)[:, 0])

    def hidden(self, images: Tensor) -> States:
        """The states [B,1+P,D], the class token first."""
        x = self.embed(images)
        positions = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
        return self.stack(x, positions)
