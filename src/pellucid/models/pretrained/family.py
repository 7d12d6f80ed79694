"""What a foreign family is: a config mapping, a table of names, and the settings of ours that it has."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pellucid.errors import DataError
from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.mapping import Row

Theirs = Mapping[str, Any]

ANY_SIZE = {
    "stack.d_model", "stack.n_layers", "stack.n_heads", "stack.d_ff", "stack.norm.eps", "stack.dropout.embedding",
    "stack.dropout.attention", "stack.dropout.hidden", "stack.dropout.residual", "vocab_size", "max_length", "pad_id", "bos_id",
    "eos_id", "start", "ends", "suppress", "labels", "n_labels",
}  # fmt: skip


def _as_it_is(name: str, config: ModelConfig) -> str | None:
    return name


@dataclass(frozen=True)
class Family:
    """One `model_type` of `transformers`.

    `standard`: dotted setting of a ModelConfig -> the value, or tuple of values, that this family has. `free`: settings it can say itself.
    Every other setting must be at its default, else the model is none of this family: so a setting added later is never lost.
    to_config(config.json, names of the tensors in the file), from_config: config.json and a ModelConfig, without token ids, which
    `fields.spoken` reads and writes for all. rows: the table of names. tidy: a name in a file as the table has it, None for what files
    carry along and nobody needs. order: where our i-th place of d_model is in theirs. computed: tensors that they store and we compute.
    misfits: what no setting tells by itself, in words.
    """

    model_type: str
    standard: Mapping[str, Any]
    free: Collection[str]
    to_config: Callable[[Theirs, Collection[str]], ModelConfig]
    from_config: Callable[[ModelConfig], dict[str, Any]]
    architecture: Callable[[ModelConfig], str]
    rows: Callable[[ModelConfig], list[Row]]
    tidy: Callable[[str, ModelConfig], str | None] = _as_it_is
    order: Callable[[ModelConfig], Tensor | None] = lambda config: None
    computed: Callable[[ModelConfig], dict[str, Tensor]] = lambda config: {}
    misfits: Callable[[ModelConfig], list[str]] = lambda config: []

    def strays(self, config: ModelConfig) -> list[str]:
        """The settings that are not this family's, in words; none = a model of ours is one of theirs."""
        found = [*self.misfits(config)]
        for name, value in settings(config).items():
            if name not in self.standard and (name in self.free or name in ANY_SIZE):
                continue
            fits = self.standard.get(name, DEFAULTS[name])
            if value != fits and not (isinstance(fits, tuple) and value in fits):
                found.append(f"{name} = {value!r} ({self.model_type} has {_said(fits)})")
        return found


def settings(config: ModelConfig) -> dict[str, Any]:
    """Dotted name -> value of every setting; what says nothing new (as many key heads as heads, the usual width) as None."""
    flat = dict(_flat(config, ""))
    s, heads = config.stack, config.heads
    if s.n_kv_heads == s.n_heads:
        flat["stack.n_kv_heads"] = None
    if heads.width is not None and heads.width * s.n_heads == s.d_model:
        flat["heads.width"] = None
    if heads.bias == ("all" if s.bias else "none"):
        flat["heads.bias"] = None
    return flat


def _flat(record: Any, prefix: str) -> Any:
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if dataclasses.is_dataclass(value):
            yield from _flat(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


DEFAULTS = settings(ModelConfig())


def _said(fits: Any) -> str:
    return " or ".join(map(repr, fits)) if isinstance(fits, tuple) and fits else repr(fits)


def head_of(
    theirs: Theirs, names: Collection[str], heads: Mapping[str, str], marks: Mapping[str, Sequence[str]]
) -> str:
    """The head of the class that config.json names; where the file does not have it, or no class is named, one that it has. heads: class ->
    head; marks: head -> what stands in names of its tensors. Raises DataError naming a class that none of ours is."""
    named = next(iter(theirs.get("architectures") or ()), None)
    if named is not None and named not in heads:
        raise DataError(f"config.json: architectures = [{named!r}] is not supported, only {', '.join(heads)}")
    there = [head for head, parts in marks.items() if all(any(part in name for name in names) for part in parts)]
    if named is not None and (not names or heads[named] in there):
        return heads[named]
    return there[0] if there else "states"
