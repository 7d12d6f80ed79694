"""What does not agree in a call that failed, and what usually causes it: one function per kind of operation."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from torch import Tensor

from pellucid.inspection.recorder import Value

Verdict = tuple[str, str]
"""What does not agree, and what usually causes it."""

ELEMENTWISE = ("add", "sub", "mul", "div", "truediv", "maximum", "minimum", "pow", "eq", "lerp")


def plain_name(name: str) -> str:
    """add for __add__, __radd__, __iadd__ and add_."""
    name = name.strip("_")
    return name[1:] if name[1:] in (*ELEMENTWISE, "matmul") else name


def judge(name: str, found: list[Tensor], values: list[Value], args: tuple, kwargs: dict[str, Any]) -> Verdict:
    """What does not agree in a failed call of the function `name`; two empty strings where it is not known."""
    operation = plain_name(name)
    if len({tensor.device.type for tensor in found}) > 1:
        where = ", ".join(str(tensor.device) for tensor in found)
        return f"the operands are on different devices: {where}", "move model and inputs to one device with .to(device)"
    kinds = {tensor.dtype for tensor in found if tensor.is_floating_point()}
    for names, diagnose in DIAGNOSES:
        with suppress(
            IndexError, TypeError
        ):  # called in a way the diagnosis does not know: the error speaks for itself
            verdict = diagnose(found, values, args, kwargs) if operation in names else None
            if verdict:
                return verdict
    if len(kinds) > 1:
        shown = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        return f"the operands are of different types: {shown}", "cast one with .to(…), or use torch.autocast"
    return "", ""


def _linear(found: list[Tensor], values: list[Value], args: tuple, kwargs: dict[str, Any]) -> Verdict | None:
    x, (gives, takes) = values[0].shape, values[1].shape
    if not found[0].is_floating_point():
        return "the input holds whole numbers, a layer multiplies real ones", "embed ids first, or call .float()"
    if x[-1] == takes:
        return None
    problem = f"the layer takes {takes} numbers (in_features), the input's last axis has {x[-1]}"
    if takes in x[:-1]:
        return problem, f"axis {x.index(takes)} of the input has {takes}: its axes may be swapped; try .transpose"
    if x[-1] == gives:
        return problem, "in_features and out_features may be the wrong way round"
    return problem, f"what comes before gives {x[-1]}: make in_features {x[-1]}, or let it give {takes}"


def _product(found: list[Tensor], values: list[Value], args: tuple, kwargs: dict[str, Any]) -> Verdict | None:
    a, b = values[0].shape, values[1].shape
    rows = b[-2] if len(b) > 1 else b[-1]
    if a[-1] != rows:
        problem = (
            f"the left one has {a[-1]} on its last axis, the right one {rows} on its last but one: they must agree"
        )
        if len(b) > 1 and a[-1] == b[-1]:
            return problem, "the right one is to be transposed: a @ b.transpose(-2, -1), as in scores = q @ kᵀ"
        return problem, "a projection gives another width than the next one takes, or axes are in another order"
    return _broadcast(values, drop=2)


def _elementwise(found: list[Tensor], values: list[Value], args: tuple, kwargs: dict[str, Any]) -> Verdict | None:
    return _broadcast(values, drop=0)


def _masked(found: list[Tensor], values: list[Value], args: tuple, kwargs: dict[str, Any]) -> Verdict | None:
    verdict = _broadcast(values, drop=0)
    return verdict and (
        verdict[0],
        "a mask made for another length: cut it, mask[:query, :key], or make it from the input",
    )


def _broadcast(values: list[Value], drop: int) -> Verdict | None:
    """The first two operands that cannot be stretched over one another; their last `drop` axes do not count."""
    shapes = [value.shape[: len(value.shape) - drop] for value in values]
    for j, b in enumerate(shapes):
        for i, a in enumerate(shapes[:j]):
            for back, (x, y) in enumerate(zip(reversed(a), reversed(b), strict=False), start=1):
                if x != y and 1 not in (x, y):
                    sizes = f"{_axis(values[i], -back - drop)} and {_axis(values[j], -back - drop)}"
                    return f"axis {-back - drop} does not agree: {sizes}", _why_apart(a, b, back + drop)
    return None


def _why_apart(a: tuple[int, ...], b: tuple[int, ...], back: int) -> str:
    if sorted(a) == sorted(b):
        return "the same axes in another order: batch first in one, tokens first in the other? .transpose one of them"
    if len(a) != len(b):
        return (
            "axes are lined up from the last one: the smaller operand may lack one in the middle; .unsqueeze it there"
        )
    if back == 1:
        return "two branches of different widths: a residual needs x and f(x) of one shape"
    return "different lengths, or batch and tokens swapped (batch_first); a table of positions or a mask for another length"


def _embedding(found: list[Tensor], values: list[Value], args: tuple, kwargs: dict[str, Any]) -> Verdict | None:
    ids, table = found[:2]
    if ids.is_floating_point():
        return f"ids must be whole numbers, these are {values[0].dtype}", "call .long() on the ids"
    if ids.numel() == 0:
        return None
    low, high = int(ids.min()), int(ids.max())
    if 0 <= low and high < len(table):
        return None
    return (
        f"ids go from {low} to {high}, the table has {len(table)} rows (0 to {len(table) - 1})",
        "the tokenizer knows more tokens than the model's vocabulary, or there are more positions than the table has",
    )


def _view(found: list[Tensor], values: list[Value], args: tuple, kwargs: dict[str, Any]) -> Verdict | None:
    numbers = values[0].shape
    wanted = [n for arg in args[1:] for n in (arg if isinstance(arg, tuple | list) else [arg]) if isinstance(n, int)]
    fixed = 1
    for n in wanted:
        fixed *= n if n > 0 else 1
    total = found[0].numel()
    if -1 not in wanted and fixed == total:
        return "the numbers do not lie in this order in memory", "use .reshape, or .contiguous() before .view"
    return (
        f"{total} numbers {values[0]} do not fill the shape {wanted}: {fixed} at a time",
        f"a width that is no multiple of the number of heads ({numbers[-1]} here), or batch and length counted in",
    )


def _unflatten(found: list[Tensor], values: list[Value], args: tuple, kwargs: dict[str, Any]) -> Verdict | None:
    axis, parts = args[1], args[2] if len(args) > 2 else kwargs.get("sizes")
    return (
        f"{_axis(values[0], axis)} cannot be cut into {list(parts or [])}",
        "a width that is no multiple of the number of heads (d_model % n_heads must be 0)",
    )


def _attention(found: list[Tensor], values: list[Value], args: tuple, kwargs: dict[str, Any]) -> Verdict | None:
    q, k, v = (value.shape for value in values[:3])
    if q[-1] != k[-1]:
        return f"queries are {q[-1]} wide, keys {k[-1]}", "queries and keys must have one head_dim"
    if k[-2] != v[-2]:
        return f"there are {k[-2]} keys and {v[-2]} values", "keys and values must come from the same tokens"
    mask = values[3] if len(values) > 3 else None
    if mask is not None:
        for back, (have, size) in enumerate(
            zip(reversed(mask.shape), reversed((*q[:-1], k[-2])), strict=False), start=1
        ):
            if have not in (1, size):
                need = f"[…, query {q[-2]}, key {k[-2]}]"
                return (
                    f"the mask {mask} has {have} where attention has {size} (axis {-back}); it must fit {need}",
                    "a mask made for another length, or one of keys [batch, keys] without mask[:, None, None, :]",
                )
    if q[-3:-2] != k[-3:-2]:
        return f"{q[-3]} heads of queries, {k[-3]} of keys", "for grouped queries pass enable_gqa=True"
    return _broadcast(values[:2], drop=2)


def _torch_attention(found: list[Tensor], values: list[Value], args: tuple, kwargs: dict[str, Any]) -> Verdict | None:
    width, heads = args[3], args[4]
    if values[0].shape[-1] != width:
        return (
            f"the attention is made for {width} (embed_dim), the queries are {values[0].shape[-1]} wide",
            "the layer before gives another width, or axes are in another order",
        )
    if values[1].shape[:2] != values[2].shape[:2]:
        return f"keys {values[1]} and values {values[2]} differ", "keys and values must come from the same tokens"
    need = f"[query {len(found[0])}, key {len(found[1])}]"
    return "", f"masks: attn_mask {need} or with batch·{heads} before it, key_padding_mask [batch, key], True = ignore"


def _cat(found: list[Tensor], values: list[Value], args: tuple, kwargs: dict[str, Any]) -> Verdict | None:
    axis = kwargs.get("dim", args[1] if len(args) > 1 else 0)
    for value in values[1:]:
        for i, (a, b) in enumerate(zip(values[0].shape, value.shape, strict=False)):
            if a != b and i != axis % len(value.shape):
                return (
                    f"axis {i} does not agree: {_axis(values[0], i)} and {_axis(value, i)}",
                    f"tensors put together along axis {axis} must be equal along all others (is dim right?)",
                )
    return "the tensors have different numbers of axes", "unsqueeze the smaller one"


def _norm(found: list[Tensor], values: list[Value], args: tuple, kwargs: dict[str, Any]) -> Verdict | None:
    wanted = list(args[1])
    return (
        f"the norm is made for {wanted}, the input ends in {list(values[0].shape[-len(wanted) :])}",
        "the norm's width must be that of what comes in (d_model)",
    )


DIAGNOSES: tuple[tuple[tuple[str, ...], Callable[..., Verdict | None]], ...] = (
    (("linear",), _linear),
    (("matmul", "bmm", "mm"), _product),
    (ELEMENTWISE, _elementwise),
    (("masked_fill", "where"), _masked),
    (("embedding",), _embedding),
    (("view", "reshape"), _view),
    (("unflatten",), _unflatten),
    (("scaled_dot_product_attention",), _attention),
    (("multi_head_attention_forward",), _torch_attention),
    (("cat", "concat", "stack"), _cat),
    (("layer_norm", "rms_norm"), _norm),
)


def _axis(value: Value, axis: int) -> str:
    name = value.axes[axis] if value.axes else ""
    return f"{name} {value.shape[axis]}".strip()
