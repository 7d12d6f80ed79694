"""ViT: an encoder over the patches of an image (Dosovitskiy et al. 2021)."""

import torch
from torch import Tensor, nn

from pellucid.models.config import ModelConfig
from pellucid.parts.embeddings import Patches
from pellucid.parts.shapes import States
from pellucid.parts.stack import Stack


class ViT(nn.Module):
    """The class token's state, behind the final norm, says what the image shows."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, c = config, config
        n_patches = (c.image_size // c.patch_size) ** 2
        self.embed = Patches(c.patch_size, c.channels, n_patches, c.stack.d_model, c.stack.dropout.embedding)
        self.stack = Stack(c.stack)
        self.classifier = nn.Linear(c.stack.d_model, c.n_labels) if c.n_labels else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """[B,channels,height,width] to logits [B,n_labels] (the class token's state [B,D] where n_labels is 0)."""
        return self.classifier(self.hidden(images)[:, 0])

    def hidden(self, images: Tensor) -> States:
        """The states [B,1+P,D], the class token first."""
        x = self.embed(images)
        positions = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
        return self.stack(x, positions)
