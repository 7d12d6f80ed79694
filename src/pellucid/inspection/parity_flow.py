"""What flows through a model at each stage, read with hooks: behind the embedding, behind each block, the final states, logits, loss.

No family is named here. Of theirs, the blocks are the first list of modules inside the encoder, the decoder or the only stack; of ours,
`Stack.blocks`.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.data.text import IGNORE
from pellucid.inspection.parity_inputs import Asked

Flow = dict[str, Tensor]
"""What flows at each stage, in the order in which it comes; real places only."""


def our_flow(model: Any, asked: Asked) -> tuple[Flow, torch.Size]:
    """Ours, and the shape of what the model says."""
    modules = {"encoder ": "encoder", "decoder ": "decoder", "": "stack"}
    parts = {name: getattr(model, modules[name]) for name in asked.keeps}
    flow, (states, logits) = _flow(model, asked.ours, parts, asked.keeps)
    flow["logits"] = _real(logits, asked)
    if asked.targets is not None:
        flow["loss"] = _loss(model, states, logits, asked.targets)
    return flow, logits.shape


def their_flow(theirs: Any, asked: Asked, order: Tensor | None, shape: torch.Size) -> Flow:
    """Theirs. order: where our i-th place of d_model is in theirs; shape: of what ours says."""
    parts = {name: getattr(theirs, f"get_{name[:-1]}")() if name else theirs.base_model for name in asked.keeps}
    flow, (_, out) = _flow(theirs, asked.theirs, parts, asked.keeps)
    if order is not None:
        flow = {name: x[..., order] for name, x in flow.items()}
    flow["logits"] = _real(_answer(out, shape), asked)
    if asked.targets is not None:
        flow["loss"] = out.loss
    return flow


def _flow(
    model: nn.Module, inputs: Mapping[str, Tensor], parts: Mapping[str, nn.Module], keeps: Mapping[str, Tensor | None]
) -> tuple[Flow, tuple[Tensor, Any]]:
    """What the parts pass on; the last part's states, padding and all, and what the model gives."""
    with _kept(parts) as kept:
        out = model(**inputs)
    flow: Flow = {}
    for part, keep in keeps.items():
        names = ["embedding", *(f"block {i}" for i in range(len(kept[part]) - 2)), "final states"]
        flow |= {part + name: x if keep is None else x[keep] for name, x in zip(names, kept[part], strict=True)}
    return flow, (kept[part][-1], out)


def _real(answer: Tensor, asked: Asked) -> Tensor:
    """What is said at real places, or of whole rows."""
    keep = list(asked.keeps.values())[-1]
    return answer[keep] if keep is not None and answer.dim() == 3 else answer


@contextmanager
def _kept(parts: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Tensor]]]:
    """Within, of each part: what its first block is given, what each block gives, and what the part gives."""
    kept: dict[str, list[Tensor]] = {name: [] for name in parts}

    def keep(name: str, x: Any) -> None:
        kept[name].append((x if isinstance(x, Tensor) else x[0]).clone())

    with ExitStack() as hooks:
        for name, part in parts.items():
            blocks = next(module for module in part.modules() if isinstance(module, nn.ModuleList))
            given = blocks[0].register_forward_pre_hook(lambda module, args, name=name: keep(name, args[0]))
            hooks.callback(given.remove)
            for module in (*blocks, part):
                gives = module.register_forward_hook(lambda module, args, out, name=name: keep(name, out))
                hooks.callback(gives.remove)
        yield kept


def _answer(out: Any, shape: torch.Size) -> Tensor:
    """Of what their model gives, what it says: the first of these that has our shape; where it says nothing, states."""
    found = [out[name] for name in ("logits", "prediction_logits", "pooler_output", "last_hidden_state") if name in out]
    found += [out["last_hidden_state"][:, 0]] if "last_hidden_state" in out else []
    return next((one for one in found if one.shape == shape), found[0])


def _loss(model: Any, states: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """Nats per target, as training computes it: of words from the states, of labels from the logits."""
    real = targets != IGNORE
    if hasattr(getattr(model, "head", None), "loss"):
        return model.head.loss(states[real], targets[real]) / real.sum()
    return F.cross_entropy(logits[real], targets[real])
