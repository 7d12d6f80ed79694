"""Activations worked out twice: those of a block are dropped after the forward pass, and made again when the backward pass reaches the
block (Chen et al. 2016, arXiv 1604.06174, section 4). A third more work; of all blocks one at a time holds its activations.

Done from outside: no model knows of it, and parameters keep their names. Dropout draws the same random numbers the second time and
autocast is as it was, so gradients are the same to the bit. Whoever listens to a part inside a block (taps) hears it twice while learning.
"""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from pellucid.parts.stack import Stack


def recompute(model: nn.Module) -> nn.Module:
    """The model, whose blocks keep nothing but what came in between forward and backward pass; in place. Without gradients it runs as
    before."""
    for stack in model.modules():
        if isinstance(stack, Stack):
            for block in stack.blocks:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
    return model
