"""The legend of axes, and the tensor types made of them. Written once, on public signatures; checked by machine in the tests only.

B batch · T tokens · S source tokens · Q queries · K keys · D d_model · F d_ff · H heads · G key/value heads · C head_dim · V vocabulary
· P patches
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

Ids = Int[Tensor, "B T"]
Positions = Int[Tensor, "#B T"]
KeyPositions = Int[Tensor, "#B K"]
Keep = Bool[Tensor, "B K"]
SourceIds = Int[Tensor, "B S"]
SourceKeep = Bool[Tensor, "B S"]
Memory = Float[Tensor, "B S D"]
States = Float[Tensor, "B T D"]
Logits = Float[Tensor, "B T V"]
Queries = Float[Tensor, "B H Q C"]
Keys = Float[Tensor, "B G K C"]
Values = Float[Tensor, "B G K Cv"]
Mixed = Float[Tensor, "B H Q Cv"]
Weights = Float[Tensor, "B H Q K"]
Bias = Float[Tensor, "#B #H Q K"]
