"""A model folder: config.json, model.safetensors, tokenizer.json, in the layout of Hugging Face.

A model whose shape a foreign family has is written under that family's names, so `transformers` loads it without this library;
another keeps our names and its config.json and model card say so. What stands beside the two is made by `foreign_files`. Names and
shapes are checked against the config before anything is allocated.
"""

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pellucid.errors import DataError, UserError, did_you_mean
from pellucid.models.build import FAMILIES, skeleton
from pellucid.models.card import card_of
from pellucid.models.config import ModelConfig
from pellucid.models.foreign_files import label_names, preprocessor, tokenizer_config, with_edges
from pellucid.models.pretrained.families import FOREIGN, home
from pellucid.models.pretrained.family import Family
from pellucid.models.pretrained.fields import check_ids, check_types, named, spoken, to_speak
from pellucid.models.pretrained.mapping import Row, row, shapes_of_theirs, to_ours, to_theirs
from pellucid.models.weights import Weights, open_weights, outdated, refuse_remote_code
from pellucid.parts.quantized import is_quantized
from pellucid.records import from_dict
from pellucid.text import beside, foreign
from pellucid.text.tokenizer import Tokenizer

OWN_PREFIX = "pellucid-"


def save(
    model: nn.Module,
    folder: Path,
    tokenizer: Tokenizer | None = None,
    card: str = "",
    speaking: Mapping[str, Any] | None = None,
) -> None:
    """Writes the folder: each file aside first, then all moved into place, the weights last. What else is in the folder stays, a model card
    too unless `card` is given. Weights are saved in float32, tied ones once. speaking: what generation_config.json
    says beside the tokens. Raises UserError for a quantised model, whose own weights are gone."""
    if is_quantized(model):
        raise UserError("a quantised model cannot be saved", "load it without precision=")
    with written_aside(folder) as aside:
        _write_folder(model, aside, tokenizer, card, speaking)
        if not card and (folder / "README.md").exists():
            (aside / "README.md").unlink()
    for path in outdated(folder):
        path.unlink()


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """A new folder to write into; at its end each file is moved into `folder`, weights last, so that none is ever half there."""
    folder = folder.resolve()
    aside = folder.with_name(f".{folder.name}-new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    yield aside
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(aside.iterdir(), key=lambda path: path.suffix == ".safetensors"):
        os.replace(path, folder / path.name)
    aside.rmdir()


def _write_folder(
    model: nn.Module, folder: Path, tokenizer: Tokenizer | None, card: str, speaking: Mapping[str, Any] | None
) -> None:
    config: ModelConfig = model.config  # type: ignore[assignment]
    family, strays = home(config)
    tensors = {name: p.detach().float().cpu().contiguous() for name, p in model.named_parameters()}
    if family:
        tensors = to_theirs(family.rows(config), tensors, family.order(config)) | family.computed(config)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    ids, speaks = to_speak(config, tokenizer.target.vocab_size if tokenizer else None, speaking)
    _write(folder / "config.json", _config_json(config, family) | label_names(config) | ids)
    _write(folder / "generation_config.json", speaks)
    if tokenizer is not None:
        with_edges(tokenizer, config).save(folder / "tokenizer.json")
        _write(folder / "tokenizer_config.json", tokenizer_config(tokenizer, config))
    if config.family == "vit":
        _write(folder / "preprocessor_config.json", preprocessor(config))
    told = card or card_of(config, family.architecture(config) if family else "", tokenizer, strays)
    (folder / "README.md").write_text(told, encoding="utf-8")


def load(
    folder: Path, dtype: torch.dtype | None = None, device: str = "cpu", mapped: bool = False
) -> tuple[nn.Module, Tokenizer | None]:
    """The model, in evaluation mode, and its tokenizer if the folder has one. Beside the model itself little memory is needed.

    mapped: for use, not for training: weights stay where and as they are in the file and are read when they are used (see `Weights`).
    Raises DataError naming the file and what is missing, unexpected, misshapen or not understood.
    """
    read_json(folder / "config.json")  # a folder without one is no model folder, whatever its weights
    weights = open_weights(folder)
    config, family = read_config(folder, weights.shapes)
    tokenizer = Tokenizer.load(folder) if foreign.present(folder) else None
    if tokenizer is not None:
        config = _agreed(folder, config, tokenizer)
    _fits_in(config, config.positions == "learned" or family is not None, weights)
    model = skeleton(config)
    tensors = partial(weights.tensors, device=device, dtype=dtype, mapped=mapped)
    _put(model, _read(weights, config, family, model, tensors, views=mapped))
    return model.eval(), tokenizer


def _agreed(folder: Path, config: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """A BERT's config.json does not name the tokens around a text: the tokenizer does."""
    if tokenizer.vocab_size > (config.vocab_size or tokenizer.vocab_size):
        sizes = f"the tokenizer knows {tokenizer.vocab_size} tokens, the model {config.vocab_size}"
        raise DataError(f"{folder}: {sizes}", "the tokenizer belongs to another model")
    config = named(config, tokenizer.target.vocab_size)
    if config.family != "bert":
        return config
    ids = {name: getattr(tokenizer, name) for name in ("bos_id", "eos_id") if getattr(config, name) is None}
    return dataclasses.replace(config, **ids)


def _read(
    weights: Weights,
    config: ModelConfig,
    family: Family | None,
    model: nn.Module,
    tensors: Callable[[Collection[str]], Iterator[tuple[str, Tensor]]],
    views: bool,
) -> dict[str, Tensor]:
    """The parameters of `model`, by our names, once all names and shapes in the files are known to fit. tensors: those of `weights`."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    rows = family.rows(config) if family else [row(name, name) for name in shapes]
    order = family.order(config) if family else None
    computed = family.computed(config) if family else {}
    by_name: dict[str, Row] = {r.theirs: r for r in rows}
    tidied = {name: family.tidy(name, config) if family else name for name in weights.shapes}
    names = {name: tidy for name, tidy in tidied.items() if tidy is not None}
    stored = {name: tuple(t.shape) for name, t in computed.items() if name in names.values()}
    expected = shapes_of_theirs(rows, shapes) | stored
    _compare(weights.where, expected, {tidy: weights.shapes[name] for name, tidy in names.items()})
    parameters: dict[str, Tensor] = {}
    for name, tensor in tensors(names):
        if names[name] in computed:
            _as_computed(weights.where, name, tensor, computed[names[name]])
        else:
            made = to_ours([by_name[names[name]]], {names[name]: tensor}, shapes, order, views)
            _add(parameters, made, weights.where, name)
    return parameters


def _add(parameters: dict[str, Tensor], made: Mapping[str, Tensor], where: Path, name: str) -> None:
    """A tensor that stands in a file twice, as a tied head beside its embedding, must be the same both times."""
    if any(ours in parameters and not torch.equal(parameters[ours], tensor) for ours, tensor in made.items()):
        raise DataError(
            f"{where}: {name} is not the tensor it is tied to", "set tie_word_embeddings to false in config.json"
        )
    parameters.update(made)


def _as_computed(where: Path, name: str, found: Tensor, ours: Tensor) -> None:
    apart = (found.float().cpu() - ours).abs().max().item()
    if not apart < (1e-5 if found.dtype == torch.float32 else 1e-2):
        raise DataError(f"{where}: {name} is not what it is computed from, by {apart:.2g}", "it was trained: not read")


def assemble(config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> nn.Module:
    """A model of ours from its config as a dictionary and its tensors under our names."""
    record = from_dict(ModelConfig, config, where)
    model = skeleton(record)
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
    _compare(Path(where), expected, {name: tuple(t.shape) for name, t in tensors.items()})
    _put(model, tensors)
    return model


def _put(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Makes these tensors the parameters; names are known to be complete, and a shared part goes by its first name."""
    model.load_state_dict(dict(tensors), assign=True, strict=False)


def _config_json(config: ModelConfig, family: Family | None) -> dict[str, Any]:
    if family:
        says = {"architectures": [family.architecture(config)], "model_type": family.model_type, "dtype": "float32"}
        return says | {"vocab_size": config.vocab_size} | family.from_config(config)
    ours = FAMILIES[config.family][0].__name__
    return {"architectures": [ours], "model_type": OWN_PREFIX + config.family, "pellucid": dataclasses.asdict(config)}


def read_config(folder: Path, names: Collection[str] = ()) -> tuple[ModelConfig, Family | None]:
    """What a folder's config.json describes, and the foreign family it is of. names: of the tensors beside it, where they are known."""
    path = folder / "config.json"
    theirs = read_json(path)
    refuse_remote_code(theirs, path)
    kind = str(theirs.get("model_type", ""))
    if kind not in FOREIGN and not kind.startswith(OWN_PREFIX):
        known = [*FOREIGN, *(OWN_PREFIX + name for name in FAMILIES)]
        raise DataError(f"{path}: models of type {kind!r} cannot be read yet", did_you_mean(kind, known))
    speaks = beside.read_json(folder / "generation_config.json")
    check_types(theirs, path)
    check_types(speaks, folder / "generation_config.json")
    try:
        if kind in FOREIGN:
            config = FOREIGN[kind].to_config(theirs, names)
            config = dataclasses.replace(config, **spoken(theirs, speaks, config.family))
        else:
            config = from_dict(ModelConfig, theirs.get("pellucid", {}), "config.json")
    except KeyError as error:
        raise DataError(f"{path}: field {error} is missing", "copy the model again") from None
    except (DataError, UserError) as error:
        raise DataError(f"{path}: {error.problem.removeprefix('config.json: ')}", error.remedy) from None
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise DataError(f"{path}: a field is not of its type ({error})", "copy the model again") from None
    check_ids(config, f"{path} or generation_config.json" if speaks else path)
    return config, FOREIGN.get(kind)


def read_json(path: Path) -> dict[str, Any]:
    """An object in a JSON file of a model folder. Raises DataError naming the file."""
    if not path.is_file():
        problem = f"{path.parent} is no model folder: it has no {path.name}"
        raise DataError(problem, "give a run folder or a model folder")
    return beside.read_json(path)


def _fits_in(config: ModelConfig, stored: bool, weights: Weights) -> None:
    """Raises DataError where the config asks for more than the files hold, before anything of that size is made: each layer has eight
    tensors or more, and each of these sizes is an axis of one. stored: whether positions are in the file, computed ones too."""
    c, s = config, config.stack
    n_layers, n_tensors = s.n_layers + (c.decoder_layers or 0), len(weights.places)
    if 8 * n_layers > n_tensors:
        asked, there = f"{n_layers:,} layers", f"{n_tensors:,} tensors"
    else:
        grid = (c.image_size // c.patch_size) ** 2 * s.d_model * stored
        sizes = [grid, c.patch_size**2 * c.channels, c.n_labels] if c.family == "vit" else [c.vocab_size, c.n_segments]
        sizes += [s.d_model, s.d_ff, s.n_heads * c.head_dim, c.decoder_vocab_size or 0, c.n_labels]
        sizes += [c.max_length] * (c.positions == "learned" and c.family != "vit")
        numbers = sum(math.prod(shape) for shape in weights.shapes.values())
        if max(sizes) <= numbers:
            return
        asked, there = f"a size of {max(sizes):,}", f"{numbers:,} numbers"
    raise DataError(
        f"{weights.where} does not fit its config.json: that asks for {asked}, there are {there}",
        "copy the model again",
    )


def _compare(path: Path, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    wrong = [f"missing: {name} {list(expected[name])}" for name in expected.keys() - found.keys()]
    wrong += [f"unexpected: {name} {list(found[name])}" for name in found.keys() - expected.keys()]
    wrong += [
        f"{name} has shape {list(found[name])}, config.json asks for {list(expected[name])}"
        for name in expected.keys() & found.keys()
        if expected[name] != found[name]
    ]
    if wrong:
        more = f"\n  … and {len(wrong) - 12} more" if len(wrong) > 12 else ""
        raise DataError(f"{path} does not fit its config.json:\n  " + "\n  ".join(sorted(wrong)[:12]) + more)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
