"""`pellucid classify MODEL [TEXT…]`: labels of texts or image files, tags of words. Imports no torch until it starts."""

import json
import sys
from typing import Any

from pellucid.cli.arguments import at_least
from pellucid.cli.asking import asking, note_cut, pieces, something

EXAMPLES = """\
  pellucid classify runs/sst2 "a warm , funny , engaging film ."
  pellucid classify runs/sst2 --json < reviews.txt
  pellucid classify runs/images photo.jpg --top 3"""
AT_ONCE = 256


def run(argv: list[str]) -> int:
    """Classify; one answer a line: the label, its probability, the text."""
    flags = asking("classify", "Label texts or image files, or tag the words of texts.", EXAMPLES)
    flags.add_argument("--top", type=at_least(1), default=1, metavar="N", help="the N likeliest labels (default: 1)")
    args = flags.parse(argv)
    something(args.text, "give a TEXT (or an image file), or lines on stdin")

    from pellucid.api import load

    pipeline: Any = load(args.model)
    for some in pieces(args.text, AT_ONCE):
        if pipeline.config.family == "bert" and pipeline.config.head == "tags":
            for text in some:
                show_tags(text, pipeline.tag(text), args.json)
        else:
            if pipeline.config.family == "bert":
                note_cut(pipeline, some)
            for text, found in zip(some, pipeline.classify(some), strict=True):
                show_label(text, found, args.top, args.json)
        sys.stdout.flush()
    return 0


def show_label(text: str, found: Any, top: int, as_json: bool) -> None:
    """The label and its probability, then the text; or an object with the `top` likeliest."""
    best = sorted(found.probabilities.items(), key=lambda one: -one[1])[:top]
    if as_json:
        said = {"input": text, "label": found.label, "probability": found.probability, "probabilities": dict(best)}
        print(json.dumps(said, ensure_ascii=False))
    else:
        print("  ".join(f"{label} {p:.3f}" for label, p in best) + f"\t{text}")


def show_tags(text: str, tagged: list[tuple[str, str, float]], as_json: bool) -> None:
    """Word/tag for people, an object for programs."""
    if as_json:
        words = [{"word": word, "tag": tag, "probability": p} for word, tag, p in tagged]
        print(json.dumps({"input": text, "words": words}, ensure_ascii=False))
    else:
        print(" ".join(word if tag == "O" else f"{word}/{tag}" for word, tag, _ in tagged))
