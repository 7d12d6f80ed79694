"""Updates of low rank under PEFT's names: those of the layers of a `transformers` model, each with lora_A [rank,in] and lora_B [out,rank].

What one of their tensors packs (GPT-2's c_attn holds queries, keys and values) has one update there and several here: stacked, their ranks
add up, and each keeps its scale. Where a model has no foreign family, the names are our own.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import DataError, UserError
from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.families import FOREIGN, home
from pellucid.models.pretrained.family import Family
from pellucid.models.pretrained.mapping import TRANSPOSED, Row, Shapes, ordered, row, to_ours, to_theirs
from pellucid.parts.lora import Lora, attached, place

TIED = "lm_head.weight"
"""What the logits are made with, where that is the table of tokens: our files hold it once, PEFT's twice."""
TASK_TYPES = {"seq2seq": "SEQ_2_SEQ_LM", "gpt": "CAUSAL_LM", "labels": "SEQ_CLS", "tags": "TOKEN_CLS"}


RENAMED = {
    "vit": {
        "encoder.layer.": "layers.",
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
}
"""Families whose layers are not called in `transformers` 5 as their files call them, which PEFT goes by; in this order."""


@dataclass(frozen=True)
class Update:
    """scale · b @ a: `a` [rank,in], `b` [out,rank]."""

    a: Tensor
    b: Tensor
    scale: float

    @property
    def rank(self) -> int:
        return len(self.a)


@dataclass(frozen=True)
class Names:
    """How the tensors of a model are called outside: the table of its family, or our own names (`family` None)."""

    family: Family | None
    config: ModelConfig
    rows: list[Row]
    order: Tensor | None

    def row_of(self, theirs: str) -> Row | None:
        """The row of a tensor in a file, under whichever of its names."""
        name = self.family.tidy(theirs, self.config) if self.family else theirs
        return next((r for r in self.rows if name and r.theirs == _layer(name, self.family)), None)


def names_of(model: nn.Module, kind: str) -> Names:
    """Those of the family `kind` (a model_type), if it has what the model has become; else those that the model would be saved under."""
    config: ModelConfig = model.config  # type: ignore[assignment]
    family = FOREIGN[kind] if kind in FOREIGN and not FOREIGN[kind].strays(config) else home(config)[0]
    if family is None:
        return Names(None, config, [row(name, name) for name in _plain(model)], None)
    rows = [replace(r, theirs=_layer(r.theirs, family)) for r in family.rows(config)]
    return Names(family, config, rows, family.order(config))


def _layer(name: str, family: Family | None) -> str:
    """The name of a tensor in a file as the layers of the `transformers` model are called."""
    for theirs, layers in (RENAMED.get(family.model_type, {}) if family else {}).items():
        name = name.replace(theirs, layers)
    return name


def _plain(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters as they are called without updates, which are left out."""
    loras = attached(model)
    updates = {f"{path}.{side}.weight" for path in loras for side in "ab"}
    usual = {f"{path}.base.{kind}": f"{path}.{kind}" for path in loras for kind in ("weight", "bias")}
    return {usual.get(name, name): p for name, p in model.named_parameters() if name not in updates}


# --- out ----------------------------------------------------------------------------------------------------------------


def to_peft(model: nn.Module, names: Names) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What adapter_config.json says of a model's updates and of what is trained whole, and the tensors of both, in float32."""
    loras, updates, whole = attached(model), {}, _trained_whole(model, names)
    for r in names.rows:
        if r.theirs not in whole and any(name.removesuffix(".weight") in loras for name in r.ours):
            updates[r.theirs.removesuffix(".weight")] = _packed(model, r, names.order)
    if not updates:
        raise UserError("an adapter cannot hold updates of what is trained whole alone", "lora.merge = true")
    modules = {r.theirs.rpartition(".")[0] for r in names.rows}
    rank, other_ranks = _pattern({path: update.rank for path, update in updates.items()})
    alpha, other_alphas = _pattern({path: update.scale * update.rank for path, update in updates.items()})
    says: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": _task_type(names.config, whole),
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": next(iter(loras.values())).dropout.rate,
        "rank_pattern": other_ranks,
        "alpha_pattern": other_alphas,
        "target_modules": _shortest(updates, modules),
        "modules_to_save": _outermost(whole) or None,
        "fan_in_fan_out": any(r.form is TRANSPOSED for r in names.rows if r.theirs.removesuffix(".weight") in updates),
        "bias": "none",
        "inference_mode": True,
    }
    if table := _tied(names, whole):
        says |= {"modules_to_save": ["lm_head", *says["modules_to_save"]], "ensure_weight_tying": True}
        whole[TIED] = whole[table].clone()
    tensors = {f"{path}.lora_{side.upper()}.weight": getattr(u, side) for path, u in updates.items() for side in "ab"}
    return says, {name: tensor.detach().float().cpu().contiguous() for name, tensor in (tensors | whole).items()}


def _task_type(config: ModelConfig, whole: Collection[str]) -> str | None:
    """What PEFT calls the task; of labels it looks for a classifier that was trained whole."""
    kind = TASK_TYPES.get(config.head, TASK_TYPES.get(config.family))
    return None if config.head in TASK_TYPES and not any("classifier" in name for name in whole) else kind


def _tied(names: Names, whole: Collection[str]) -> str:
    """The table of tokens, if it is trained whole and tied; "" else. Raises UserError where PEFT cannot tie."""
    found = [r.theirs for r in names.rows if r.theirs in whole and _is_tied(r, names)]
    if found and names.config.family != "gpt":
        raise UserError("an adapter cannot hold a tied table of tokens that has grown", "lora.merge = true")
    return found[0] if found else ""


def _is_tied(r: Row, names: Names) -> bool:
    """Whether several of their modules share what a row holds: a table of tokens that makes logits too, or of two stacks."""
    c, table = names.config, any(name.endswith("tokens.weight") for name in r.ours)
    return bool(names.family and table and (c.family == "seq2seq" or (c.tied and c.head == "words")))


def _packed(model: nn.Module, r: Row, order: Tensor | None) -> Update:
    """One update of what a row packs: those of its parts stacked, nothing where a part has none."""
    parts: list[Any] = [model.get_submodule(name.removesuffix(".weight")) for name in r.ours]
    scale = next(part.scale for part in parts if isinstance(part, Lora))
    back = None if order is None else torch.argsort(order)
    above, below = [], []
    for name, part in zip(r.ours, parts, strict=True):
        if not isinstance(part, Lora):
            below.append(torch.zeros(part.out_features, 0))
            continue
        a, b = _ordered(name, part.a.weight.detach().cpu(), part.b.weight.detach().cpu(), back)
        above.append(a)
        below.append(b * (part.scale / scale))
    return Update(torch.cat(above), _outputs(r, torch.block_diag(*below), r.form.theirs), scale)


def _outputs(r: Row, b: Tensor, form: Any) -> Tensor:
    """`b` [out,rank] with its rows as the form has them: a form says where outputs are, of inputs only whether they come first."""
    return b if r.form is TRANSPOSED else form(b)


def _ordered(name: str, a: Tensor, b: Tensor, order: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both sides of an update of the weight `name` with the places of d_model rearranged where it has them."""
    if order is None:
        return a, b
    told = ordered(name, torch.tensor([[0, 1], [2, 3]]), torch.tensor([1, 0]))[0, 0]  # 2: of outputs, 1: of inputs
    return (ordered(name, a, order) if told == 1 else a), (ordered(name, b, order) if told == 2 else b)


def _trained_whole(model: nn.Module, names: Names) -> dict[str, Tensor]:
    """What is trained but is no update, under their names, and what PEFT takes for it: it goes by the ends of names, and a module is whole
    or not ("classifier" is "pre_classifier" too). Raises UserError for what has no name there."""
    plain = _plain(model)
    trained = {name for name, parameter in plain.items() if parameter.requires_grad}
    rows = [r for r in names.rows if trained & set(r.ours)]
    nameless = trained - {name for r in rows for name in r.ours}
    if nameless:
        raise UserError(f"an adapter cannot hold {min(nameless)}", "keep the whole model: lora.merge = true")
    ends = tuple(_outermost(r.theirs for r in rows))
    rows = [r for r in names.rows if any(path.endswith(ends) for path in _paths(r.theirs))]
    ours = {name: plain[name].detach().cpu() for r in rows for name in r.ours}
    for name, lora in ((f"{path}.weight", lora) for path, lora in attached(model).items()):
        if name in ours:
            ours[name] = ours[name] + lora.scale * (lora.b.weight @ lora.a.weight).detach().cpu()
    return to_theirs(rows, ours, names.order)


def _paths(tensor: str) -> list[str]:
    """The modules that a tensor is in, the outermost first."""
    words = tensor.split(".")
    return [".".join(words[:n]) for n in range(1, len(words))]


def _outermost(tensors: Iterable[str]) -> list[str]:
    """The modules of these tensors, but for those inside of another."""
    paths = {name.rpartition(".")[0] for name in tensors}
    return sorted(path for path in paths if not any(path.startswith(f"{other}.") for other in paths))


def _shortest(chosen: Collection[str], among: Collection[str]) -> list[str]:
    """Ends of names that fit the chosen ones and no others: "q_proj", "attn.c_proj". An end goes with one parent: their model may have
    layers that ours has not (a pooler's "dense")."""
    ends, left = [], set(chosen)
    while left:
        words = min(left).split(".")
        for n in range(1, len(words) + 1):
            end = ".".join(words[-n:])
            fitting = {path for path in among if path == end or path.endswith(f".{end}")}
            parents = {path.removesuffix(end).rstrip(".").rpartition(".")[2] for path in fitting}
            if fitting <= set(chosen) and (len(parents) == 1 or all(map(str.isdigit, parents))):
                break
        ends.append(end)
        left -= fitting
    return sorted(ends)


def _pattern(values: Mapping[str, int | float]) -> tuple[int | float, dict[str, int | float]]:
    """The commonest value, and the others by name."""
    values = {path: int(value) if value == int(value) else value for path, value in values.items()}
    common = Counter(values.values()).most_common(1)[0][0]
    others = {path: value for path, value in values.items() if value != common}
    return common, {
        end: value
        for value in sorted(set(others.values()))
        for end in _shortest([path for path in others if others[path] == value], values)
    }


# --- in -------------------------------------------------------------------------------------------------


def put_update(model: nn.Module, r: Row, update: Update, names: Names, shapes: Shapes, path: Path) -> None:
    """An update of what a row packs, around each of its parts. Raises DataError, naming the file `path`, where it does not fit."""
    rows_of_b = [shapes[name][0] for name in r.ours]
    fits = (sum(rows_of_b), shapes[r.ours[0]][-1]) == (update.b.shape[0], update.a.shape[1])
    linears = [model.get_submodule(name.removesuffix(".weight")) for name in r.ours]
    if not fits or not all(isinstance(linear, nn.Linear) for linear in linears):
        raise DataError(f"{path}: {r.theirs} has no place for its update", "the adapter is one of another model")
    for name, linear, b in zip(r.ours, linears, _outputs(r, update.b, r.form.ours).split(rows_of_b), strict=True):
        module = Lora(linear, update.rank, update.scale * update.rank)  # type: ignore[arg-type]
        a, b = _ordered(name, update.a, b, names.order)
        with torch.no_grad():
            module.a.weight.copy_(a)
            module.b.weight.copy_(b)
        place(model, name.removesuffix(".weight"), module)


@torch.no_grad()
def put_whole(model: nn.Module, r: Row, tensor: Tensor, names: Names, shapes: Shapes, path: Path) -> None:
    """What was trained whole, into our parameters. Raises DataError, naming the file `path`, where it does not fit."""
    own = _plain(model)
    for name, ours in to_ours([r], {r.theirs: tensor}, shapes, names.order).items():
        if own[name].shape != ours.shape:
            raise DataError(f"{path}: {name} has shape {list(ours.shape)}, the model's {list(own[name].shape)}")
        own[name].copy_(ours)


def refuse_untied(copies: Mapping[str, Tensor], names: Names, path: Path) -> None:
    """Raises DataError where what was trained whole, by its names in the file `path`, is tied in the model: PEFT trains each place by
    itself, so one of ours holds it only if the table and the head of a decoder are there, and equal."""
    (name, first), *others = copies.items()
    r = names.row_of(name)
    apart = any(not torch.equal(first, other) for _, other in others)
    if apart or (r is not None and _is_tied(r, names) and (names.config.family != "gpt" or not others)):
        what = f"{' and '.join(copies)} {'are' if others else 'is'} trained apart from what the model ties to it"
        raise DataError(f"{path}: {what}", "merge it with peft (merge_and_unload), and save the whole model")
