"""Question: how well does the recipe `pydocs` foresee the Python library's own sources, next to the compressors Python comes with?

Command (nothing to download; flags as of `pellucid train` stand last):

    python benchmarks/pydocs.py [--out runs/benchmark-pydocs] [--json FILE] [--flags --training.steps 500 …]

Trains through the command line, as a user would, and scores the whole held-out part, the last twentieth of the characters. The unit is
bits per byte: of a model its loss, -log2 of the probability of the text divided by its bytes (tokens of 4,096 pieces, windows as in
training, each token scored once); of a compressor eight times the bytes it makes of the same text, divided by its bytes. The compressors
begin with nothing, the model knows the other nineteen twentieths, and its own size is not counted: what is compared is how well the next
sign is foreseen, not what would be stored. `primed`: lzma again, the training part before the held-out part less the training part
alone (lzma looks back over all of it, 192 MiB of dictionary), which is the fairer rival. Prints two samples of the model.
"""

import argparse
import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

from multi30k import pellucid, trained

from pellucid.data.config import DataConfig
from pellucid.data.files import read_chunks
from pellucid.training.recipe import load_recipe

PROMPTS = ("def read_lines(path):\n", "class Queue:\n")
LZMA = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 192 * 2**20}]


def texts(data: DataConfig) -> tuple[bytes, bytes]:
    """The training part and the held-out part, cut as in training."""
    text = "".join(chunk.text for chunk in read_chunks(data.train))
    cut = int(len(text) * (1 - data.holdout))
    return text[:cut].encode(), text[cut:].encode()


def compressed(train: bytes, held: bytes) -> dict[str, float]:
    """Bits per byte of the held-out part by each compressor at its strongest."""
    sizes = {
        "gzip -9": len(gzip.compress(held, 9)),
        "bzip2 -9": len(bz2.compress(held, 9)),
        "xz -9e": len(lzma.compress(held, preset=9 | lzma.PRESET_EXTREME)),
        "xz, primed": len(lzma.compress(train + held, filters=LZMA)) - len(lzma.compress(train, filters=LZMA)),
    }
    return {name: 8 * size / len(held) for name, size in sizes.items()}


def trained_model(out: str, flags: list[str]) -> dict[str, Any]:
    """The recipe's run, and its numbers on the whole held-out part."""
    run = Path(out)
    trained(run, ["train", "pydocs", "--out", str(run), *flags])
    result = json.loads(pellucid("evaluate", str(run), "--split", "valid", "--json"))
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    last = [line for line in lines if line["kind"] == "train"][-1]
    choices = json.loads((run / "run.json").read_text(encoding="utf-8"))["choices"]
    how = {"steps": last["step"], "seconds": last["seconds"], "tokens_per_second": last["tokens"] / last["seconds"]}
    return {**result, **how, "precision": choices["precision"], "threads": choices["threads"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/benchmark-pydocs", help="the run's folder")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--flags", nargs=argparse.REMAINDER, default=[], help="all that follows goes to `pellucid train`"
    )
    args = parser.parse_args()
    model = trained_model(args.out, args.flags)
    train, held = texts(load_recipe(str(Path(args.out) / "run.toml")).data)
    rivals = compressed(train, held)
    for prompt in PROMPTS:
        print(f"--- {prompt}{pellucid('generate', args.out, prompt, '--max-new', '200', '--seed', '1')}")
    print(f"{'':12}{'bits a byte':>14}   {len(held):,} bytes held out, {len(train):,} to learn from")
    print(f"{'Pellucid':12}{model['bits_per_byte']:>14.3f}   perplexity {model['perplexity']:.2f} a token, ", end="")
    print(
        f"{model['steps']:,} steps, {model['seconds']:.0f} s of training, {model['tokens_per_second']:,.0f} tokens/s, ",
        end="",
    )
    print(f"{model['precision']}, {model['threads']} threads")
    for name, bits in rivals.items():
        print(f"{name:12}{bits:>14.3f}")
    if args.json:
        args.json.write_text(json.dumps({"pellucid": model, "compressors": rivals}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
