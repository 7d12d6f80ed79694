"""Adapters: updates of low rank in a folder of their own, in PEFT's layout, beside the model that they belong to.

adapter_config.json says which model that is and how the updates are scaled, adapter_model.safetensors holds them and whatever else was
trained whole, so `peft` loads an adapter of ours on the `transformers` model. pellucid.json says what the model has become, where heads,
labels or the vocabulary are new (with a config.json beside it, `transformers` would look for a whole model here).
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file
from torch import Tensor, nn

from pellucid.errors import DataError
from pellucid.models import hub, storage
from pellucid.models.card import Trained, adapter_card, is_edited
from pellucid.models.config import ModelConfig
from pellucid.models.foreign_files import tokenizer_config, with_edges
from pellucid.models.pretrained.peft import Names, Update, names_of, put_update, put_whole, refuse_untied, to_peft
from pellucid.models.weights import Weights, open_file
from pellucid.records import from_dict
from pellucid.text.tokenizer import Tokenizer

SETTINGS, WEIGHTS, OWN = "adapter_config.json", "adapter_model.safetensors", "pellucid.json"
PREFIX = "base_model.model."
HEADS: dict[str, Literal["labels", "tags"]] = {"SEQ_CLS": "labels", "TOKEN_CLS": "tags"}

HONOURED = {
    "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "base_model_name_or_path", "revision", "task_type",
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "ensure_weight_tying",
}  # fmt: skip
"""The second line says which tensors there are: the file shows them."""
WITHOUT_EFFECT = {
    "auto_mapping", "peft_version", "inference_mode", "lora_dropout", "fan_in_fan_out", "megatron_core", "loftq_config",
    "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "velora_config",
}  # fmt: skip
"""Of training, of other computers, or of ways to begin that `init_lora_weights` names."""
ONLY: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),  # the others change the model itself
}


def is_adapter(folder: Path) -> bool:
    """Whether a model folder holds an adapter; of a run, its model."""
    return (_model_folder(folder) / SETTINGS).is_file()


def _model_folder(folder: Path) -> Path:
    return folder / "model" if (folder / "run.toml").is_file() else folder


def _kind_of(folder: Path) -> str:
    """The model_type of a folder, "" where it does not say."""
    path = _model_folder(folder) / "config.json"
    return str(storage.read_json(path).get("model_type", "")) if path.is_file() else ""


# --- out ----------------------------------------------------------------------------------------------------------------


def save(
    model: nn.Module,
    folder: Path,
    base: str,
    tokenizer: Tokenizer | None = None,
    trained: Trained | None = None,
    begun: str = "",
) -> None:
    """Writes the updates attached to a model, and what else of it is trained, as an adapter of the model that `base` names: a folder, a run
    or a name on the hub. Each file aside first, then all moved into place, the weights last; a model card that somebody wrote stays.
    trained: what the run tells, for the card. begun: `hash_of` the parameters of the base, "" where it is not known.

    Raises UserError for a trained parameter that has no name in such a file.
    """
    config: ModelConfig = model.config  # type: ignore[assignment]
    found = hub.find(base)
    names = names_of(model, _kind_of(found))
    says, tensors = to_peft(model, names)
    name, _, revision = (str(_model_folder(found).resolve()), "", "") if hub.is_path(base) else base.partition("@")
    says |= {"base_model_name_or_path": name} | ({"revision": revision} if revision else {})
    told: dict[str, Any] = {OWN: {"model": dataclasses.asdict(config), "begun": begun}, SETTINGS: says}
    with storage.written_aside(folder) as aside:
        if tokenizer is not None:
            with_edges(tokenizer, config).save(aside / "tokenizer.json")
            told["tokenizer_config.json"] = tokenizer_config(tokenizer, config)
        for file, content in told.items():
            (aside / file).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        save_file({PREFIX + name: t for name, t in tensors.items()}, aside / WEIGHTS, metadata={"format": "pt"})
        if not is_edited(folder / "README.md"):
            card = adapter_card(_card(names, says, tensors), config, tokenizer, trained)
            (aside / "README.md").write_text(card, encoding="utf-8")


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """What tells weights from others: of names and numbers (float32), in hexadecimal; "" of none."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest() if tensors else ""


def refuse_changed(begun: str, base: nn.Module, where: Path | str) -> None:
    """Raises DataError where the model `base`, as it is `where`, is not the one whose `hash_of` is `begun`; "" = it is not known."""
    if begun and begun != hash_of(dict(base.named_parameters())):
        raise DataError(f"{where} has changed since the run began with it", "put the old model back")


def _card(names: Names, says: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[str]:
    """What it is and how it is loaded, for its card."""
    base, whole, config = says["base_model_name_or_path"], says["modules_to_save"] or [], names.config
    parts = [f"# Updates of low rank (LoRA) for {base}", f"Rank {says['r']}, on {', '.join(says['target_modules'])}."]
    if whole:
        parts.append(f"Trained whole: {', '.join(whole)}.")
    if names.family is None:
        parts.append(
            "Names are Pellucid's own: `transformers` has no table for this shape. Load it with `pellucid.load`."
        )
    else:
        model = f'{names.family.architecture(config)}.from_pretrained("{base}"{_labels(config, whole)})'
        parts.append(f'Loads in `peft`: `PeftModel.from_pretrained({model}, "…")`, and with `pellucid.load`.')
    size = config.vocab_size
    if any(t.dim() == 2 and len(t) == size for name, t in tensors.items() if ".lora_" not in name):
        parts.append(
            f"A table of tokens is its own: first `resize_token_embeddings({size})` where the model has another size."
        )
    return parts


def _labels(config: ModelConfig, whole: Collection[str]) -> str:
    """What `from_pretrained` has to be told of labels; where the base has a classifier of its own, it may be of another size."""
    told = f", num_labels={config.n_labels}" if config.n_labels else ""
    told += f", id2label={dict(enumerate(config.labels))!r}" if config.labels else ""
    return told + (", ignore_mismatched_sizes=True" if "classifier" in whole else "")


# --- in -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Adapter:
    """The folder of an adapter, opened: adapter_config.json, pellucid.json ({} where there is none), and its tensors, not read yet."""

    folder: Path
    says: dict[str, Any]
    own: dict[str, Any]
    weights: Weights


def read(folder: Path) -> Adapter:
    """Opens a folder. Raises DataError naming what is damaged, or a field that would change numbers in a way that is not known here."""
    folder = _model_folder(folder)
    own, file = folder / OWN, folder / WEIGHTS
    if not file.is_file():
        raise DataError(f"{file} does not exist", "save the adapter as safetensors")
    return Adapter(
        folder, _settings(folder / SETTINGS), storage.read_json(own) if own.is_file() else {}, open_file(file)
    )


def _settings(path: Path) -> dict[str, Any]:
    says = storage.read_json(path)
    for name, value in says.items():
        known = ONLY.get(name, (None, False, {}, []))
        if name not in HONOURED | WITHOUT_EFFECT and value is not None and value not in known:
            raise DataError(f"{path}: {name} = {value!r} is not understood", "its numbers could differ: it is not read")
    if not isinstance(says.get("r"), int) or not isinstance(says.get("lora_alpha"), int | float):
        raise DataError(f"{path}: r and lora_alpha must be numbers", "copy the adapter again")
    return says


def config_of(adapter: Adapter, base: Callable[[], ModelConfig]) -> ModelConfig:
    """What the model is with the adapter: as it was saved here; else the same as `base`, or what task_type and the size of a new head
    say, with the names that `transformers` gives to labels."""
    if adapter.own:
        return from_dict(ModelConfig, adapter.own.get("model", {}), str(adapter.folder / OWN))
    config, shapes = base(), adapter.weights.shapes
    head = HEADS.get(adapter.says.get("task_type") or "", config.head)
    whole = [shape[0] for name, shape in shapes.items() if len(shape) == 2 and ".lora_" not in name]
    if head == config.head or not whole:
        return config
    n = min(whole)
    return dataclasses.replace(config, head=head, n_labels=n, labels=tuple(f"LABEL_{i}" for i in range(n)))


def base_of(adapter: Adapter) -> Path:
    """The folder of the model that an adapter belongs to. Raises DataError when it is not there."""
    says, folder = adapter.says, adapter.folder
    name, revision = str(says.get("base_model_name_or_path") or ""), says.get("revision")
    places = [Path(name).expanduser(), folder / name] if name else []
    found = next((place for place in places if place.is_dir()), None)
    if found is None and name and not hub.is_path(name):
        found = hub.find(f"{name}@{revision}" if revision else name)
    if found is None:
        remedy = "put it there, or write into base_model_name_or_path where it is"
        raise DataError(f"{folder / SETTINGS}: the model it belongs to, {name!r}, is not there", remedy)
    return found


def put_on(model: nn.Module, adapter: Adapter, base: Path, new: Collection[str] = ()) -> None:
    """Attaches the updates of an adapter to the model that it belongs to, opened from `base`, and sets what was trained whole, all of `new`
    included. Raises DataError naming what is missing, does not fit or is not understood."""
    says, names, path = adapter.says, names_of(model, _kind_of(base)), adapter.weights.where
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in adapter.weights.tensors(adapter.weights.places)}
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    whole: dict[str, list[str]] = {}
    missing = set(new)
    for name, tensor in tensors.items():
        if name.endswith(".lora_B.weight"):
            continue
        module = name.removesuffix(".lora_A.weight")
        r = names.row_of(f"{module}.weight" if module != name else name)
        if r is None or any(ours not in shapes for ours in r.ours):
            raise DataError(f"{path}: {name} belongs to nothing in {base}", "the adapter is one of another model")
        if module == name:
            whole.setdefault(r.theirs, []).append(name)
            put_whole(model, r, tensor, names, shapes, path)
            missing -= set(r.ours)
            continue
        b = tensors.get(f"{module}.lora_B.weight")
        rank = _fitting(says.get("rank_pattern") or {}, module, says["r"])
        if b is None or tensor.shape[0] != rank or b.shape[1:] != tensor.shape[:1]:
            raise DataError(f"{path}: {name} and its lora_B do not fit r = {rank}", "copy the adapter again")
        alpha = _fitting(says.get("alpha_pattern") or {}, module, says["lora_alpha"])
        update = Update(tensor, b, alpha / (rank**0.5 if says.get("use_rslora") else rank))
        put_update(model, r, update, names, shapes, path)
    for copies in whole.values():
        refuse_untied({name: tensors[name] for name in copies}, names, path)
    if missing:
        raise DataError(f"{path} does not hold {min(missing)}, which is new", "the adapter is one of another model")


def _fitting(pattern: Mapping[str, Any], module: str, default: Any) -> Any:
    """The value of the first pattern, a regular expression of the end of a name, that fits."""
    try:
        return next((value for key, value in pattern.items() if re.fullmatch(rf"(.*\.)?({key})", module)), default)
    except re.error as error:
        raise DataError(f"{SETTINGS}: {error.pattern!r} is no regular expression: {error}") from None
