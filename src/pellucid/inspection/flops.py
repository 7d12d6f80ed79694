"""FLOPs of one operation, from the shapes of its operands: a multiply-add counts 2.

Matrix products and convolutions are counted, as everywhere in the field; norms, softmax, activations and sums of tensors count 0: they
cost time by the memory they move. Attention is counted in full, also where a causal mask lets a kernel skip half of it.
"""

from collections.abc import Callable, Sequence
from math import prod

Shape = Sequence[int]


def matrix_product(left: Shape, right: Shape) -> int:
    """[…,m,k] · [k,n] or […,k,n]: 2·…·m·k·n."""
    return 2 * prod(left) * right[-1]


def convolution(x: Shape, weight: Shape, out: Shape, transposed: bool) -> int:
    """Each number of the output (of the input, if transposed) meets one kernel [channels of a group, …]."""
    return 2 * prod(x if transposed else out) * prod(weight[1:])


def attention(q: Shape, k: Shape, v: Shape) -> int:
    """Scores and mixing: [B,H,Q,C]·[B,G,K,C] and [B,H,Q,K]·[B,G,K,Cv]."""
    return 2 * prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


def attention_backward(gradient: Shape, q: Shape, k: Shape, v: Shape) -> int:
    """Scores once more, and two products for each product of the forward pass."""
    return 2 * prod(q[:-1]) * k[-2] * (3 * q[-1] + 2 * v[-1])


ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)
FORMULAS: dict[str, Callable[[list[Shape], Shape, tuple], int]] = {
    "mm": lambda x, out, args: matrix_product(x[0], x[1]),
    "bmm": lambda x, out, args: matrix_product(x[0], x[1]),
    "addmm": lambda x, out, args: matrix_product(x[1], x[2]),
    "baddbmm": lambda x, out, args: matrix_product(x[1], x[2]),
    "linear": lambda x, out, args: 2 * prod(x[0]) * x[1][0],
    "addmv": lambda x, out, args: 2 * prod(x[1]),
    "mv": lambda x, out, args: 2 * prod(x[0]),
    "dot": lambda x, out, args: 2 * prod(x[0]),
    "convolution": lambda x, out, args: convolution(x[0], x[1], out, bool(args[6])),
    "convolution_backward": lambda x, out, args: (
        convolution(x[1], x[2], x[0], bool(args[7])) * sum(map(bool, args[10][:2]))
    ),
    **dict.fromkeys(ATTENTION, lambda x, out, args: attention(x[0], x[1], x[2])),
    **dict.fromkeys(
        (f"{name}_backward" for name in ATTENTION), lambda x, out, args: attention_backward(x[0], x[1], x[2], x[3])
    ),
}
"""Operation -> its FLOPs from the shapes of its tensors, of its first result, and its arguments."""


def flops(operation: str, operands: list[Shape], out: Shape, args: tuple) -> int:
    """FLOPs of an ATen operation (its name without overload: "mm"); 0 for one that is no matrix product."""
    formula = FORMULAS.get(operation)
    return formula(operands, out, args) if formula else 0
