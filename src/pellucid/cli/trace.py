"""`pellucid trace MODEL [TEXT]`: a real forward pass, step by step. Imports no torch until it starts."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from pellucid.cli.arguments import Parser, at_least
from pellucid.errors import UserError, did_you_mean

EXAMPLES = """\
  pellucid trace runs/shakespeare "ROMEO:"
  pellucid trace runs/multi30k "Ein Hund läuft." --target "A dog runs." --depth 5
  pellucid trace gpt2 --length 16 --batch 2 --ops"""
NOTE = """\
MODEL is a run folder, a model folder, or the name of a preset, which then has random weights:
  original-base original-big original-laptop gpt2 gpt2-medium … llama-like bert-base bert-laptop vit-b16 vit-laptop"""


def run(argv: list[str]) -> int:
    """Trace; prints the story or one JSON object. 3 when the forward pass failed."""
    args = parser().parse(argv)

    from pellucid.inspection.trace import trace

    pipeline, what = find(args.model)
    model, subject = pipeline.model, choose(pipeline, args)

    from pellucid.inspection.subject import still

    with still(model):
        alone = [timed(model, subject.inputs) for _ in range(2)][1]  # the first pass also warms up
        story = trace(model, labels=subject.labels, **subject.inputs)
    if args.json:
        print(json.dumps({"model": what, "inputs": ids(subject), **story.to_dict()}, ensure_ascii=False))
    else:
        show(story, [what, *subject.said], alone, args)
    return 3 if story.clash else 0


def timed(model: Any, inputs: dict[str, Any]) -> float | None:
    """Seconds of a forward pass; None where it fails (its trace will say why)."""
    start = time.perf_counter()
    try:
        model(**inputs)
    except Exception as error:  # noqa: BLE001
        if isinstance(error, UserError):
            raise
        return None
    return time.perf_counter() - start


def parser() -> Parser:
    """The flags."""
    flags = Parser(
        "trace", f"Every step of a real forward pass: axes, shapes, parameters, FLOPs, time.\n\n{NOTE}", EXAMPLES
    )
    flags.add_argument("model", metavar="MODEL", help="a run folder, a model folder, a preset, or org/name on the hub")
    flags.add_argument(
        "text", metavar="TEXT", nargs="?", help="what it reads (of a ViT: an image file; default: random)"
    )
    flags.add_argument("--target", metavar="TEXT", help="of an encoder-decoder: its output (default: its own answer)")
    flags.add_argument("--length", type=at_least(1), metavar="N", help="tokens of a random input (default: 8)")
    flags.add_argument("--batch", type=at_least(1), metavar="B", help="rows of a random input (default: 1)")
    flags.add_argument("--depth", type=at_least(0), metavar="N", help="levels of modules shown (default: 4)")
    flags.add_argument("--ops", action="store_true", help="also the operations inside the modules, at any depth")
    flags.add_argument("--all", action="store_true", help="every layer, also those that are like the first")
    flags.add_argument("--json", action="store_true", help="print one JSON object, nothing folded")
    return flags


def find(name: str) -> tuple[Any, str]:
    """(pipeline, what it is in words) of a folder or a preset."""
    from pellucid.api import Pipeline, load
    from pellucid.models.hub import is_path
    from pellucid.models.presets import PRESETS

    if Path(name).expanduser().is_dir() or ("/" in name and not is_path(name)):
        pipeline = load(name)
        return pipeline, f"model   {name} ({pipeline.config.family})"
    if name not in PRESETS:
        where = "no folder and no preset" if "/" not in name else "no folder"
        raise UserError(f"{name} is {where}", did_you_mean(name, PRESETS))

    from pellucid.models.build import build
    from pellucid.training.devices import find as find_device

    model = build(PRESETS[name]).to(find_device("auto")).eval()
    return Pipeline(model), f"model   {name} ({PRESETS[name].family}), random weights"


def choose(pipeline: Any, args: argparse.Namespace) -> Any:
    """The input that was asked for, on the model's device."""
    from pellucid.inspection.subject import image_subject, random_subject, text_subject

    model, tokenizer, family = pipeline.model, pipeline._tokenizer, pipeline.config.family
    if args.target is not None and (family != "seq2seq" or args.text is None):
        raise UserError("--target is for an encoder-decoder and a TEXT", "leave it out, or give both")
    if args.text is not None and (args.length or args.batch):
        raise UserError("--length and --batch are of a random input", "leave them out, or leave out TEXT")
    device = next(model.parameters()).device
    if args.text is None:
        return random_subject(model.config, args.length, args.batch or 1).to(device)
    if family == "vit":
        return image_subject(model.config, Path(args.text), pipeline.pixels).to(device)
    if tokenizer is None:
        raise UserError(
            f"{args.model} has no tokenizer to read a text with", "leave out TEXT for random ids: --length N"
        )
    return text_subject(model, tokenizer, args.text, args.target).to(device)


def ids(subject: Any) -> dict[str, Any]:
    """The inputs for JSON: ids and their tokens; of images the shape."""
    found = {name: x.tolist() if x.dim() == 2 else list(x.shape) for name, x in subject.inputs.items()}
    return found | ({"tokens": subject.labels} if subject.labels else {})


def show(story: Any, head: list[str], alone: float | None, args: argparse.Namespace) -> None:
    """A table on a terminal, aligned lines in a pipe."""
    from pellucid.inspection import tell

    print("\n".join(head), end="\n\n")
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console(highlight=False)
        console.print(tell.rich_table(tell.rows(story.root, args.depth, args.ops, args.all), console.width))
        print("\n".join(tell.after(story)))
    else:
        print(tell.plain(story, args.depth, args.ops, args.all))
    if alone is not None:
        print(f"                    {tell.duration(alone)} for the same pass, untraced")
