"""`pellucid cost MODEL`: parameters, FLOPs, memory, time, before anything is allocated. Imports no torch until it starts."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from pellucid.cli.arguments import Parser, at_least
from pellucid.cli.overrides import negated, override
from pellucid.errors import UserError, did_you_mean
from pellucid.training.recipe import Recipe, fields, list_recipes, load_recipe, recipe_path

EXAMPLES = """\
  pellucid cost gpt2 --length 1024 --batch 4
  pellucid cost llama-like --length 512 --stack.d-model 512 --stack.n-heads 8 --model.vocab-size 16000
  pellucid cost multi30k --batch 64 --length 32 --precision bfloat16 --json"""
ABOUT = """\
What a model costs: parameters, FLOPs, memory, time. Nothing of its size is allocated.

MODEL is a run folder, a model folder, the name of a preset (gpt2, bert-base, vit-b16, original-base, …), or a recipe.
What if: any field of a recipe's model or training, as --stack.d-model 1024 or --model.vocab-size 8000."""
KINDS = {
    "projections": "projections, grow with B·N·D²",
    "attention": "attention, grows with B·N²·D",
    "head": "head, grows with B·N·D·V",
}


def run(argv: list[str]) -> int:
    """Count, measure for two seconds, print."""
    changes, rest = split(argv)
    args = parser().parse(rest)
    recipe = find(args.model)
    recipe = override(recipe, changes, "pellucid cost MODEL")

    from pellucid.inspection.cost import Setting, cost
    from pellucid.inspection.machine import measure
    from pellucid.training import devices

    device = devices.find(recipe.training.device)
    length, batch = sizes(recipe, args)
    t = recipe.training
    setting = Setting(length, batch, args.precision, device, t.optimizer, t.recompute)
    found = cost(recipe.model, setting)
    machine = None if args.no_time else measure(device, args.precision)
    result = {"model": args.model, "family": recipe.model.family, "setting": vars(setting), **found.to_dict()}
    if machine:
        result |= {"machine": machine.to_dict(), "seconds": found.seconds(machine)}
    print(json.dumps(result, ensure_ascii=False) if args.json else "\n".join(report(result, recipe.model)))
    return 0


def parser() -> Parser:
    """The flags, but for fields."""
    flags = Parser("cost", ABOUT, EXAMPLES)
    flags.add_argument(
        "model", metavar="MODEL", help="a run folder, a model folder, a preset, a recipe, or org/name on the hub"
    )
    flags.add_argument("--length", type=at_least(1), metavar="N", help="tokens in a row; of source and of target each")
    flags.add_argument("--batch", type=at_least(1), metavar="B", help="rows (default: the recipe's, or 1)")
    flags.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="of the products (default: float32)"
    )
    flags.add_argument("--no-time", action="store_true", help="do not measure this machine, tell no times")
    flags.add_argument("--json", action="store_true", help="print one JSON object; sizes in bytes, times in seconds")
    return flags


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """(flags of fields with their values, the rest): --stack.d-model 1024 is one, --batch 4 is not."""
    switches = {negated("--" + path.replace("_", "-")) for path, kind in fields().items() if kind is bool}
    changes: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        dotted = word.startswith("--") and "." in word.partition("=")[0]
        (changes if dotted else rest).append(word)
        if dotted and "=" not in word and word.replace("_", "-") not in switches:
            value = next(words, None)
            if value is None or value.startswith("--"):
                raise UserError(f"{word} needs a value", "example: --stack.d-model 512")
            changes.append(value)
    return changes, rest


def find(name: str) -> Recipe:
    """The recipe of a run or of that name; a preset or a model folder as a recipe with nothing but its model."""
    from pellucid.models import hub
    from pellucid.models.presets import PRESETS

    folder = hub.find(name) if "/" in name else Path(name).expanduser()
    if (folder / "run.toml").is_file():
        recipe = load_recipe(folder / "run.toml")
        holder = next((p for p in (folder / "model", *sorted(folder.glob("checkpoints/*"))) if has_config(p)), None)
        return replace(recipe, model=config_in(holder)) if holder else recipe
    if folder.is_dir():
        return Recipe(model=config_in(folder))
    if name in PRESETS:
        return Recipe(model=PRESETS[name])
    if name not in list_recipes() and not folder.is_file() and not name.endswith(".toml"):
        raise UserError(f"{name} is no folder, preset or recipe", did_you_mean(name, [*PRESETS, *list_recipes()]))
    return assumed(load_recipe(recipe_path(name)))


def assumed(recipe: Recipe) -> Recipe:
    """A recipe with what its data would tell: the vocabulary's size as it is asked for, and two labels."""
    model = recipe.model
    heads: dict[str, Any] = {"classify": "labels", "tag": "tags"}
    if model.family == "bert":
        model = replace(model, head=heads.get(recipe.task, "words"))
    if recipe.task in heads and not model.n_labels:
        model = replace(model, n_labels=2)
    if model.family != "vit" and not model.vocab_size:
        model = replace(model, vocab_size=recipe.data.vocab_size, pad_id=0, bos_id=1, eos_id=2)
    return replace(recipe, model=model)


def has_config(folder: Path) -> bool:
    """Whether it says what the model is."""
    return any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))


def config_in(folder: Path) -> Any:
    """The config of a model folder, or of the model that an adapter makes; weights are not read."""
    from pellucid.models import adapters, storage
    from pellucid.models.config import ModelConfig
    from pellucid.records import from_dict

    if adapters.is_adapter(folder):
        adapter = adapters.read(folder)
        return adapters.config_of(adapter, lambda: config_in(adapters.base_of(adapter)))
    theirs = (
        json.loads((folder / "config.json").read_text(encoding="utf-8")) if (folder / "config.json").is_file() else {}
    )
    if "family" in theirs:  # a checkpoint's
        return from_dict(ModelConfig, theirs, str(folder / "config.json"))
    return storage.read_config(folder)[0]


def sizes(recipe: Recipe, args: argparse.Namespace) -> tuple[int, int]:
    """(tokens in a row, rows): as asked, else as the recipe trains (its text's windows), else one row of at most 512 tokens."""
    model, training = recipe.model, recipe.training
    windows = recipe.task in ("language-model", "masked-language-model") and bool(recipe.description)
    length = args.length or min(training.length if windows else 512, model.max_length)
    batch = args.batch or (training.batch_size if windows else 1)
    return length, batch


def report(result: dict[str, Any], config: Any) -> list[str]:
    """The same for people."""
    from pellucid.inspection.tell import count, size

    lines = [
        *about(result["setting"], result["model"], config),
        "",
        *shares("parameters (tied ones once)", result["parameters"], lambda n: f"{n:,}"),
        *shares("FLOPs of a forward pass (a multiply-add is 2)", named(result["forward_flops"], KINDS), count),
        *shares("FLOPs of a training step", result["step_flops"], count),
        "memory",
    ]
    memory = result["memory_bytes"]
    lines += [f"  {name:44}{size(n):>14}" for name, n in named(memory, memory_names(result["setting"])).items()]
    lines += [f"  (training computes attention {result['training_attention']})"]
    lines += ["  (the room of a cache is doubled when it is full: up to twice that)"] if "cache" in memory else []
    return lines + (times(result) if "seconds" in result else [])


def about(setting: dict[str, Any], name: str, config: Any) -> list[str]:
    """What was asked."""
    s, c = setting, config.stack
    vocabulary = f", vocabulary {config.vocab_size:,}" if config.vocab_size else ""
    kind = "image" if config.family == "vit" else "row"
    tokens = "" if config.family == "vit" else f" of {s['length']:,} tokens"
    tokens += " of source and as many of target" if config.family == "seq2seq" else ""
    return [
        f"{name}: {config.family}, {c.n_layers} layers, d_model {c.d_model}, {c.n_heads} heads, d_ff {c.d_ff}{vocabulary}",
        f"{s['batch']:,} {kind}{'' if s['batch'] == 1 else 's'}{tokens}, {s['precision']} on {s['device']}",
    ]


def memory_names(setting: dict[str, Any]) -> dict[str, str]:
    """What the sizes are, in words."""
    muon = setting["optimizer"] == "muon"
    return {
        "weights": "weights (float32)",
        "optimizer": "optimizer (Muon: a momentum of matrices)" if muon else "optimizer (AdamW: two moments)",
        "activations": "activations kept for backward",
        "training step": "these four, in a training step",
        "peak": "the most at once, what is passing included",
        "cache per token": "cache of keys and values, per token",
        "cache": f"cache, {setting['batch']:,} × {setting['length']:,} tokens",
        "logits": "logits of a forward pass",
    }


def named(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The values under other names."""
    return {names.get(name, name): value for name, value in values.items()}


def shares(title: str, values: dict[str, int], shown: Any) -> list[str]:
    """A block of lines: each value and its share of the total; zeros are left out."""
    total = values["total"]
    lines = [f"  {name:44}{shown(n):>14}{100 * n / max(1, total):8.1f} %" for name, n in values.items() if n]
    return [title, *lines, ""]


def times(result: dict[str, Any]) -> list[str]:
    """Bounds and predictions, and what they rest on."""
    from pellucid.inspection.tell import count, duration

    m, t, s = result["machine"], result["seconds"], result["setting"]
    unit, each = ("images", 1) if result["family"] == "vit" else ("tokens", s["length"])
    rate = f"{s['batch'] * each / t['step']:,.0f}"
    return [
        "",
        "time on this machine, predicted (and what it would be at the measured peak alone)",
        f"  {'forward pass':44}{duration(t['forward']):>14}  ({duration(t['forward_least'])})",
        f"  {'training step':44}{duration(t['step']):>14}  ({duration(t['step_least'])})",
        f"  {'training, in a second':44}{rate:>14}  {unit}",
        f"  (measured now: {count(m['peak'])}FLOP/s in large matrix products, of which a model's are assumed to reach "
        f"{m['utilisation']:.0%};",
        f"  {count(m['bandwidth'])}B/s in sums, {count(m['large'])}B/s where memory is fresh, {count(m['slow'])}B/s in GELU; "
        f"{duration(m['step'])} an operation)",
    ]
