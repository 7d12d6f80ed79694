"""Parity: a model folder read here and by `transformers`, given the same numbers, compared stage by stage.

A stage is what flows at one place (see `parity_flow`); then come the tokens of cached generation, and the ids the tokenizers make of texts.
What is padding is not compared. Where their d_model is laid out in another order, `Family.order` says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pellucid
from pellucid.errors import DataError, UserError
from pellucid.generation.hypotheses import Rules
from pellucid.generation.options import GenerationOptions, changed, of_folder
from pellucid.generation.search import generate
from pellucid.generation.speakers import SPEAKERS, start_ids
from pellucid.inspection.parity_flow import Flow, our_flow, their_flow
from pellucid.inspection.parity_inputs import Asked, batch_for, rows_for, their_tokenizer
from pellucid.inspection.subject import still
from pellucid.models import speaking, storage
from pellucid.models.adapters import is_adapter
from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.families import home
from pellucid.models.pretrained.family import Family
from pellucid.text.tokenizer import Tokenizer
from pellucid.training.opening import open_model

TOLERANCE = 1e-5
"""Equal: |ours - theirs| <= TOLERANCE * max(1, |theirs|), everywhere."""
FEW_BITS = 1e-6
"""No float32 is nearer to what it stands for, once it has been computed with."""
NEW = 16
"""Tokens generated, at most."""


@dataclass(frozen=True)
class Stage:
    """max_rel_difference: the largest |ours - theirs| / max(1, |theirs|). None where a difference is not a number."""

    stage: str
    max_abs_difference: float | None
    max_rel_difference: float | None
    equal: bool


@dataclass
class Parity:
    """What was found.

    attention: which of theirs was used, the one `from_pretrained` chooses by itself (theirs differ from each other in the last digits, so
    it is said). rounding: where stages differ, whether their own float32 is as far from their float64; None where nothing differs, or
    float64 cannot be had. tokens_equal, tokenizer_equal: None where the model does not generate, or where not both have a tokenizer.
    missing_keys: weights that they did not find in the file and filled at random; where that matters, a stage differs. notes: what a
    person should know.
    """

    architecture: str
    attention: str
    device: str
    stages: list[Stage]
    rounding: bool | None = None
    tokens_equal: bool | None = None
    tokenizer_equal: bool | None = None
    missing_keys: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def first_difference(self) -> str | None:
        """The first stage that is not equal."""
        return next((stage.stage for stage in self.stages if not stage.equal), None)

    @property
    def equal(self) -> bool:
        """Whether everything that was compared is."""
        others = self.tokens_equal is not False and self.tokenizer_equal is not False
        return self.first_difference is None and others

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = [stage.max_abs_difference for stage in self.stages]
        largest = None if None in found else max(one for one in found if one is not None)
        told = {"equal": self.equal, "max_abs_difference": largest, "first_difference": self.first_difference}
        return told | {"tolerance": TOLERANCE, "dtype": "float32"} | asdict(self)


def verify(folder: Path, text: str | None = None, device: str = "cpu", beam: int = 1) -> Parity:
    """The folder (a model folder, or a run's) in both libraries, in float32. text: what both read; None = texts of several languages; beam:
    how both generate, 1 = greedily.

    Raises UserError where `transformers` is missing, DataError where it has no class for the model or the folder cannot be read.
    """
    library = _transformers()
    folder = folder / "model" if (folder / "run.toml").is_file() else folder
    if is_adapter(folder):
        raise DataError(f"{folder} is an adapter, no whole model", "train with lora.merge = true, and verify that")
    model, tokenizer = open_model(folder, torch.float32, device)
    config: ModelConfig = model.config  # type: ignore[assignment]
    family = _family(folder)
    theirs, told = _their_model(library, folder, family.architecture(config), device)
    rows = rows_for(model, tokenizer, tokenizer and their_tokenizer(library, folder), text)
    asked, order = batch_for(model, theirs, rows.ids), family.order(config)
    with still(model), still(theirs):
        options, undone = of_folder(folder, config)
        options = changed(options, {"max_new": NEW, "n_best": 1, "temperature": 0.0, "beam": beam, "stop": ()})
        tokens_equal, apart = _tokens(model, theirs, rows.ids, options, tokenizer)
        ours, shape = our_flow(model, asked)
        flow = their_flow(theirs, asked, order, shape)
        stages = [_stage(name, mine, flow[name]) for name, mine in ours.items()]
        differing = [stage.stage for stage in stages if not stage.equal]
        rounding = _is_rounding(differing, ours, flow, theirs, asked, order) if differing else None
    return Parity(
        type(theirs).__name__,
        theirs.config._attn_implementation,
        device,
        stages,
        rounding,
        tokens_equal,
        rows.tokenizer_equal,
        sorted(told["missing_keys"]),
        [
            *_named(folder, theirs),
            *rows.notes,
            *apart,
            *(f"{one}, and the tokens are compared without" for one in speaking.note(undone)),
            *(f"they leave {name} aside" for name in sorted(told["unexpected_keys"])),
        ],
        {one.__name__: str(one.__version__) for one in (pellucid, library, torch)},
    )


# --- their side ----------------------------------------------------------------------------------------------------------


def _transformers() -> Any:
    """The library, quiet."""
    try:
        import transformers
    except ImportError:
        raise UserError("this needs the package transformers", "pip install 'pellucid[reference]'") from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def _family(folder: Path) -> Family:
    """What the folder's layout is. DataError where only this library knows it, with the settings that no family of theirs has."""
    config, family = storage.read_config(folder)
    if family is None:
        strays = "".join(f"\n  - {stray}" for stray in home(config)[1])
        raise DataError(
            f"{folder}: transformers has no class for this model, so there is nothing to compare with{strays}"
        )
    return family


def _their_model(library: Any, folder: Path, name: str, device: str) -> tuple[Any, Mapping[str, Any]]:
    """Their class of that name, and what loading told of names. Nothing is fetched, and no code but the library's is run."""
    if not hasattr(library, name):
        raise DataError(f"{folder}: transformers {library.__version__} has no class {name!r}", "update transformers")
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, "output_loading_info": True}
    try:
        model, told = getattr(library, name).from_pretrained(folder, dtype=torch.float32, **local)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise DataError(f"transformers cannot load {folder} as {name}: {error}") from None
    if hasattr(model.config, "mask_ratio"):
        model.config.mask_ratio = 0.0  # of images they hide parts by chance; here both see all
    return model.to(device).eval(), told


def _named(folder: Path, theirs: Any) -> list[str]:
    """A note where the folder was written by another of their classes than the one that is compared."""
    names = storage.read_json(folder / "config.json").get("architectures") or []
    own = type(theirs).__name__
    return [f"config.json names {', '.join(names)}; {own} has what is read here"] if names and own not in names else []


# --- the numbers ---------------------------------------------------------------------------------------------------------


def _stage(name: str, ours: Tensor, theirs: Tensor) -> Stage:
    """Compared."""
    if ours.shape != theirs.shape:
        raise DataError(f"{name} cannot be compared: ours is {list(ours.shape)}, theirs {list(theirs.shape)}")
    apart = (ours - theirs).abs()
    if not torch.isfinite(apart).all():
        return Stage(name, None, None, False)
    return Stage(name, float(apart.max()), relative := _apart(ours, theirs), relative <= TOLERANCE)


def _apart(x: Tensor, reference: Tensor) -> float:
    """The largest |x - reference| / max(1, |reference|)."""
    return float(((x - reference).abs() / reference.abs().clamp(min=1)).max())


def _is_rounding(
    differing: list[str], ours: Flow, theirs: Flow, model: Any, asked: Asked, order: Tensor | None
) -> bool | None:
    """Whether ours is no further from theirs in float64 than twice what theirs in float32 is, wherever the two differ. Their `model` is in
    float64 afterwards."""
    wide = {name: x.double() if x.is_floating_point() else x for name, x in asked.theirs.items()}
    try:
        exact = their_flow(model.double(), replace(asked, theirs=wide), order, ours["logits"].shape)
    except RuntimeError:  # something in it is float32 whatever it is asked for
        return None
    limits = {name: 2 * max(_apart(theirs[name], exact[name]), FEW_BITS) for name in differing}
    return all(_apart(ours[name], exact[name]) <= limit for name, limit in limits.items())


# --- generated tokens ----------------------------------------------------------------------------------------------------


def _tokens(
    model: Any, theirs: Any, rows: Sequence[list[int]], options: GenerationOptions, tokenizer: Tokenizer | None
) -> tuple[bool | None, list[str]]:
    """Whether the two go on alike, ours with all rows in one batch, theirs with each row by itself, both with the cache; and where they do
    not. None where one of them does not generate."""
    if not rows or model.config.family not in SPEAKERS or not theirs.can_generate():
        return None, []
    ours = [best[0].ids for best in generate(model, rows, options, tokenizer.target if tokenizer else None)]
    try:
        other = _their_tokens(theirs, model, rows, options)
    except ValueError as error:  # a folder that does not say how to begin
        return None, [f"transformers does not generate: {error}"]
    apart = [f"tokens, row {i}: ours {ours[i]}, theirs {other[i]}" for i in range(len(rows)) if ours[i] != other[i]]
    return not apart, apart


def _their_tokens(theirs: Any, model: Any, rows: Sequence[list[int]], options: GenerationOptions) -> list[list[int]]:
    """Of the folder's generation_config.json the special tokens count, and what is done here too: `options`. Nothing else does."""
    config: ModelConfig = model.config
    ends, start = Rules(GenerationOptions(), config, None).ends, start_ids(config) if config.family == "seq2seq" else []
    own = theirs.generation_config
    tokens = {name: value for name in speaking.TOKENS if (value := getattr(own, name)) is not None}
    how = tokens | speaking.written(vars(options), config)
    if "bad_words_ids" in how:
        how["bad_words_ids"] = [words for words in how["bad_words_ids"] if len(words) == 1] or None
    how.pop("max_length", None)
    how["max_new_tokens"] = NEW + max(0, len(start) - 1)  # a forced first token counts as new there
    theirs.generation_config = type(own)(**how)
    said = []
    for row in rows:
        given = torch.tensor([row], device=next(model.parameters()).device)
        new = theirs.generate(given, attention_mask=torch.ones_like(given))[0].tolist()[len(start or row) :]
        said.append(list(takewhile(lambda token: token not in ends, new)))
    return said
