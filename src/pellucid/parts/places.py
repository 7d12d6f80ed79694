"""Where tokens stand and what they see: in a line, one behind the other; or as a caller says, who then vouches for it."""

from typing import NamedTuple

from torch import Tensor

from pellucid.parts.masks import Mask


class Places(NamedTuple):
    """positions [B|1,T] of the new tokens; keys [B|1,K], those of all tokens that are remembered, the new ones last; mask: which of them
    each new one sees."""

    positions: Tensor
    keys: Tensor
    mask: Mask
