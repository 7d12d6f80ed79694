"""The model card, README.md of a model folder: what no other file can say. Front matter for the hub's programs, then the same for people.

Everything in it is known: from the config, and of a run from what it wrote down (`Trained`). What a person would have to say and has not
(a licence, where the data comes from) is warned of. Imports no torch.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pellucid.models.config import ANY_LENGTH, ModelConfig
from pellucid.text.tokenizer import Tokenizer

HERE = "path/to/this/folder"
FAMILIES = {"seq2seq": "encoder-decoder", "gpt": "decoder", "bert": "encoder", "vit": "vision transformer"}


@dataclass(frozen=True)
class Trained:
    """What a run knows of the model it made.

    name: of its recipe. begun_with: the model whose weights it began with, "" where they were new; base: its name on the hub, "" where it
    has none. said: where the data comes from and under which terms. data, training: facts by name. split: what `metrics` were measured on,
    in words; dataset: that part, for programs. epilogue: how the weights were chosen.
    """

    name: str
    parameters: int = 0
    license: str = ""
    said: str = ""
    language: tuple[str, ...] = ()
    begun_with: str = ""
    base: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    split: str = ""
    dataset: str = ""
    epilogue: str = ""


@dataclass(frozen=True)
class Use:
    """What one does with a model: the hub's name for it, and a call of each library."""

    pipeline: str
    pellucid: str
    transformers: Sequence[str]


def card_of(
    config: ModelConfig,
    architecture: str,
    tokenizer: Tokenizer | None,
    strays: Sequence[str] = (),
    trained: Trained | None = None,
) -> str:
    """The card. architecture: the class of `transformers` that reads the weights, "" where there is none; strays: the settings that left
    the nearest one; trained: what the run tells, where there was one."""
    use = use_of(config, tokenizer)
    parts = [_title(config, trained), *_warnings(trained), *_how(use, architecture, strays, tokenizer, config)]
    if trained is not None:
        parts += _told(trained)
    parts += _limits(config, tokenizer, trained)
    return _signed(_front_matter("transformers" if architecture else "pellucid", config, use, trained), parts)


def adapter_card(
    told: Sequence[str], config: ModelConfig, tokenizer: Tokenizer | None, trained: Trained | None = None
) -> str:
    """The card of an adapter. told: what it is and how it is loaded, a paragraph each; config: of the model it belongs to."""
    parts = [*told, *_warnings(trained), *(_told(trained) if trained is not None else [])]
    return _signed(_front_matter("peft", config, use_of(config, tokenizer), trained), parts)


def _signed(front: str, parts: Sequence[str]) -> str:
    text = front + "\n" + "\n\n".join(filter(None, parts)) + "\n"
    return f"{text}\n<!-- pellucid {_digest(text)} -->\n"


def is_edited(path: Path) -> bool:
    """Whether somebody has changed a card, or written it: then it is theirs, and stays."""
    if not path.is_file():
        return False
    text, _, mark = path.read_text(encoding="utf-8").rstrip("\n").rpartition("\n<!-- pellucid ")
    return mark != f"{_digest(text)} -->"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- for programs --------------------------------------------------------------------------------------------------------


def _front_matter(library: str, config: ModelConfig, use: Use, trained: Trained | None) -> str:
    """YAML between two lines of dashes. Values are written as JSON, which YAML reads: no word is taken for another type."""
    fields: dict[str, Any] = {"library_name": library}
    fields |= {"pipeline_tag": use.pipeline, "tags": ["pellucid", config.family]}
    if trained is not None:
        fields |= _licence(trained.license)
        fields |= {"language": list(trained.language)} if trained.language else {}
        fields |= {"base_model": trained.base} if trained.base else {}
        fields |= {"metrics": list(trained.metrics), "model-index": _index(use, trained)} if trained.metrics else {}
    return "".join(["---\n", *(f"{name}: {_json(value)}\n" for name, value in fields.items()), "---\n"])


def _licence(said: str) -> dict[str, str]:
    """The hub knows licences by short names; whatever else is said is "other", with a name."""
    if not said:
        return {}
    known = re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", said.lower())
    return {"license": said.lower()} if known else {"license": "other", "license_name": said}


def _index(use: Use, trained: Trained) -> list[dict[str, Any]]:
    """The measured numbers as the hub shows them."""
    numbers = [{"type": name, "value": value} for name, value in trained.metrics.items()]
    dataset = {"name": trained.split, "type": trained.dataset, "split": "validation"}
    return [
        {"name": trained.name, "results": [{"task": {"type": use.pipeline}, "dataset": dataset, "metrics": numbers}]}
    ]


def _json(value: Any) -> str:
    """JSON that is YAML too: nothing that YAML refuses to read."""
    return re.sub(r"[\x7f-\x9f\u2028\u2029\ufeff]", " ", json.dumps(value, ensure_ascii=False))


# --- for people ----------------------------------------------------------------------------------------------------------


def _title(config: ModelConfig, trained: Trained | None) -> str:
    s, vision = config.stack, config.family == "vit"
    layers = f"{s.n_layers} layers"
    if config.family == "seq2seq":
        layers = f"{s.n_layers} + {s.n_layers if config.decoder_layers is None else config.decoder_layers} layers"
    reads = f"{config.channels} × {config.image_size} × {config.image_size} pixels"
    reads = reads if vision else f"vocabulary {config.vocab_size:,}"
    sizes = f"{layers}, d_model {s.d_model}, {s.n_heads} heads, {reads}"
    kind = FAMILIES[config.family]
    what = f"{'An' if kind.startswith('e') else 'A'} {kind}"
    if trained is None:
        return f"# {what}\n\n{sizes[0].upper()}{sizes[1:]}. Written by Pellucid."
    began = f" It began with the weights of {trained.begun_with}." if trained.begun_with else ""
    return f"# {trained.name}\n\n{what} of {trained.parameters:,} parameters: {sizes}. Trained with Pellucid.{began}"


def _warnings(trained: Trained | None) -> list[str]:
    """What is missing, for everyone to see."""
    if trained is None:
        return []
    missing = {
        "**No licence is stated**: nobody but its maker may use this model until one is.": trained.license,
        "**No source of the data is stated**: whose texts or pictures these were, and under which terms, is not known.": trained.said,
    }
    return [f"> {warning}" for warning, said in missing.items() if not said]


def _how(
    use: Use, architecture: str, strays: Sequence[str], tokenizer: Tokenizer | None, config: ModelConfig
) -> list[str]:
    """How it is loaded, and what people who read texts or pictures with other programs should know."""
    ours = ["import pellucid", f'model = pellucid.load("{HERE}")', use.pellucid]
    parts = ["## How to use it", _code(ours)]
    if architecture:
        parts += [f"In `transformers` it is a `{architecture}`:", _code(use.transformers)]
    else:
        why = "".join(f"\n- {stray}" for stray in strays)
        parts.append(f"Its tensors have Pellucid's own names: `transformers` has no class for this shape.{why}")
    return [*parts, " ".join(_on_input(config, tokenizer))]


def _told(trained: Trained) -> list[str]:
    """What the run knows."""
    parts = ["## Data", trained.said, _table(trained.data)]
    parts += ["## Training", _table(trained.training)]
    if trained.metrics:
        shown = {name.replace("_", " "): f"{value:.4f}" for name, value in trained.metrics.items()}
        parts += ["## Evaluation", f"Measured on {trained.split}.", _table(shown), trained.epilogue]
    return parts


def _limits(config: ModelConfig, tokenizer: Tokenizer | None, trained: Trained | None) -> list[str]:
    """Tokenizer, and what it cannot do."""
    parts = []
    if tokenizer is not None:
        specials = ", ".join(f"`{name}` {i}" for name, i in list(tokenizer.specials.items())[:8])
        parts = ["## Tokenizer", f"{tokenizer.kind}, {tokenizer.vocab_size:,} tokens; special: {specials or 'none'}."]
    limits = ["It reads one picture, cut to its middle square."]
    if config.family != "vit":
        limits = [f"It reads at most {config.max_length:,} tokens."] if config.max_length < ANY_LENGTH else []
    if trained is not None:
        before = f" and from what {trained.begun_with} had seen" if trained.begun_with else ""
        limits.append(f"It has learnt from the data above{before}: of what is not like them it knows nothing.")
        limits.append("It has not been tested for unfair or harmful answers.")
    return [*parts, "## Limits", " ".join(limits)]


def _table(rows: Mapping[str, str]) -> str:
    cells = [f"| {name} | {value.replace('|', '&#124;')} |" for name, value in rows.items() if value]
    return "\n".join(["| | |", "|---|---|", *cells]) if cells else ""


def _code(lines: Sequence[str]) -> str:
    return "\n".join(["```python", *lines, "```"])


def use_of(config: ModelConfig, tokenizer: Tokenizer | None) -> Use:
    """What this model is for."""
    if config.family == "gpt" and tokenizer is not None and tokenizer.answer_id is not None:
        said = '[{"role": "user", "content": "…"}]'
        return Use("text-generation", 'print(model.generate("…").text)', _pipeline("text-generation", said))
    if config.family == "seq2seq":
        lines = [
            "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer",
            f'model, tokenizer = (kind.from_pretrained("{HERE}") for kind in (AutoModelForSeq2SeqLM, AutoTokenizer))',
            'print(tokenizer.decode(model.generate(**tokenizer("…", return_tensors="pt"))[0], skip_special_tokens=True))',
        ]
        return Use("translation", 'print(model.generate("…").text)', lines)
    mask = tokenizer.tokens([tokenizer.mask_id])[0] if tokenizer and tokenizer.mask_id is not None else "<mask>"
    task, ours, text = {
        "gpt": ("text-generation", 'print(model.generate("…").text)', '"…"'),
        "vit": ("image-classification", 'print(model.classify("picture.png").label)', '"picture.png"'),
        "words": ("fill-mask", f'print(model.fill("… {mask} …"))', f'"… {mask} …"'),
        "labels": ("text-classification", 'print(model.classify("…").label)', '"…"'),
        "tags": ("token-classification", 'print(model.tag("…"))', '"…"'),
        "vector": ("feature-extraction", 'print(model.embed("…"))', '"…"'),
        "states": ("feature-extraction", 'print(model.embed("…"))', '"…"'),
    }[config.head if config.family == "bert" else config.family]
    if config.family == "vit":  # the pipeline would make every picture RGB
        kinds, mode = "AutoModelForImageClassification, AutoImageProcessor", "L" if config.channels == 1 else "RGB"
        picture = f'processor(Image.open("picture.png").convert("{mode}"), return_tensors="pt")'
        lines = ["from PIL import Image", f"from transformers import {kinds}"]
        lines.append(f'model, processor = (kind.from_pretrained("{HERE}") for kind in ({kinds}))')
        return Use(task, ours, [*lines, f"print(model(**{picture}).logits.argmax(-1))"])
    return Use(task, ours, _pipeline(task, text))


def _pipeline(task: str, given: str) -> list[str]:
    return ["from transformers import pipeline", f'model = pipeline("{task}", "{HERE}")', f"print(model({given}))"]


def _on_input(config: ModelConfig, tokenizer: Tokenizer | None) -> list[str]:
    """How what `transformers` reads becomes what was read in training."""
    if config.family == "vit":
        grey = ["Make it grey first: `image.convert('L')`."] if config.channels == 1 else []
        made = "`AutoImageProcessor` makes the same numbers as in training of an opened, upright 8-bit `PIL.Image`."
        return [made, *grey]
    if tokenizer is None:
        return []
    told = ["In `transformers` a special token's name in a text is that token; in training it was plain text."]
    if tokenizer.answer_id is not None:
        told.insert(
            0, "It has learnt single prompts and their answers; `apply_chat_template` writes them as in training."
        )
    if config.family == "bert":
        edges = [f"`{tokenizer.library.id_to_token(i)}`" for i in (config.bos_id, config.eos_id) if i is not None]
        told.insert(0, f"`AutoTokenizer` puts {' and '.join(edges)} around a text, as in training.")
    return told
