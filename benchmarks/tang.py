"""Question: does a small GPT trained on Tang quatrains write quatrains, and are they its own?

Command (FOLDER has text/tang-poems.tsv.gz: title, author, text, from github.com/chinese-poetry/chinese-poetry; flags as of
`pellucid train` stand last):

    python benchmarks/tang.py --data FOLDER [--poems 200] [--out runs/benchmark-tang] [--json FILE] [--flags --training.steps 500 …]

Of the poems those are kept that have exactly four lines, all of five or all of seven Chinese characters, each once; lost characters
(□) leave a poem out. Shuffled, they are written one a line into files of the system's temporary folder, the last twentieth held out. The
recipe `text` is trained on them through the command line with characters for tokens and the sizes below. Then it writes poems from a line
end alone (temperature 0.8, top_p 0.95), and these are counted:

* quatrains: exactly four lines, all of five or all of seven characters; with the commonest punctuation: ，。，。
* sound: quatrains that repeat no line and whose second and fourth line do not end with the same character (a character does not rhyme
  with itself). Rhyme and tones are not looked at: how these were spoken in Tang times is not in the data.
* lines that occur in the poems trained on, and poems of which all four do; beside them the same of the held-out poems, as poets too
  took lines from each other.

The held-out part is counted alike, which is how good a poem can be by this measure. Perplexity is per character of the held-out part,
punctuation and line ends included.
"""

import argparse
import gzip
import json
import random
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from multi30k import pellucid, trained

MARKS = "，。？！；、："
HANZI = r"[\u3400-\u9fff\U00020000-\U0003ffff]"
SIZES = "--data.tokenizer char --data.vocab-size 8000 --stack.n-layers 4 --model.max-length 128 --training.length 128"
SIZES += " --stack.dropout.residual 0.2 --stack.dropout.embedding 0.2"
TRAINING = "--training.steps 1500 --training.batch-size 32 --training.lr 2e-3 --training.warmup 100"
HOW = "--temperature 0.8 --top-p 0.95 --max-new 64 --json"
SHOWN = 5
"""Samples of each form."""


def lines_of(poem: str) -> list[str]:
    """What stands between the punctuation marks."""
    return [line for line in re.split(f"[{MARKS}]", poem) if line]


def form(poem: str) -> int:
    """5 or 7 if it is a quatrain of such lines, else 0."""
    lengths = [len(line) if re.fullmatch(f"{HANZI}+", line) else 0 for line in lines_of(poem)]
    return lengths[0] if lengths in ([5] * 4, [7] * 4) else 0


def quatrains(file: Path) -> list[str]:
    """Those of the collection, each once, shuffled."""
    with gzip.open(file, "rt", encoding="utf-8") as rows:
        poems = [row.rstrip("\n").split("\t")[2] for row in rows]
    kept = sorted({poem for poem in poems if form(poem) and poem[-1] in MARKS})
    fives = sum(form(poem) == 5 for poem in kept)
    print(f"{len(poems):,} poems, of these {len(kept):,} different quatrains: {fives:,} of fives", file=sys.stderr)
    random.Random(0).shuffle(kept)
    return kept


def stored(name: str, poems: list[str]) -> str:
    """A file of one poem a line, always in the same place, so that a run can be gone on with."""
    file = Path(tempfile.gettempdir()) / f"pellucid-benchmark-tang-{name}.txt"
    file.write_text("\n".join(poems) + "\n", encoding="utf-8")
    return str(file)


def counted(poems: list[str], known: set[str]) -> dict[str, float]:
    """The shares the docstring tells of. `known`: the lines of the poems trained on."""
    forms = [poem for poem in poems if form(poem)]
    all_lines = [line for poem in forms for line in lines_of(poem)]

    def sound(poem: str) -> bool:
        lines = lines_of(poem)
        return len(set(lines)) == 4 and lines[1][-1] != lines[3][-1]

    marks = [re.sub(HANZI, "", poem) == "，。，。" for poem in forms]
    return {
        "poems": len(poems),
        "quatrains": len(forms) / len(poems),
        "of fives": sum(form(poem) == 5 for poem in forms) / len(poems),
        "marks ，。，。": sum(marks) / len(poems),
        "sound": sum(map(sound, forms)) / len(poems),
        "known lines": sum(line in known for line in all_lines) / max(1, len(all_lines)),
        "known poems": sum(all(line in known for line in lines_of(poem)) for poem in forms) / len(poems),
    }


def written(run: Path, n: int) -> list[str]:
    """n poems of the model, each begun by a line end."""
    said = pellucid("generate", str(run), *["\n"] * n, "--stop", "\n", *HOW.split())
    return [json.loads(line)["text"].strip("\n") for line in said.splitlines()]


def measured(run: Path) -> dict[str, Any]:
    """How well the held-out poems are foreseen, and what training cost."""
    result = json.loads(pellucid("evaluate", str(run), "--split", "valid", "--json"))
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    last = [line for line in lines if line["kind"] == "train"][-1]
    choices = json.loads((run / "run.json").read_text(encoding="utf-8"))["choices"]
    return {**result, "steps": last["step"], "seconds": last["seconds"], "threads": choices["threads"]}


def table(columns: dict[str, dict[str, float]]) -> str:
    """A row for each count, a column for each source of poems."""
    lines = [f"{'':16}" + "".join(f"{name:>16}" for name in columns)]
    for row in next(iter(columns.values())):
        values = [column[row] for column in columns.values()]
        lines.append(f"{row:16}" + "".join(f"{v:>16,}" if row == "poems" else f"{v:>16.1%}" for v in values))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--poems", type=int, default=200)
    parser.add_argument("--out", default="runs/benchmark-tang", help="the run's folder")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--flags", nargs=argparse.REMAINDER, default=[], help="all that follows goes to `pellucid train`"
    )
    args = parser.parse_args()
    poems = quatrains(args.data / "text" / "tang-poems.tsv.gz")
    cut = len(poems) * 19 // 20
    known, run = {line for poem in poems[:cut] for line in lines_of(poem)}, Path(args.out)
    data = ["--data", stored("train", poems[:cut]), "--data.valid", stored("valid", poems[cut:])]
    trained(run, ["train", "text", *data, *SIZES.split(), *TRAINING.split(), "--out", str(run), *args.flags])
    result, own = measured(run), written(run, args.poems)
    for size in (5, 7):
        print(*[poem for poem in own if form(poem) == size][:SHOWN], sep="\n", end="\n\n")
    counts = {"Pellucid": counted(own, known), "held-out poems": counted(poems[cut:], known)}
    print(table(counts))
    print(
        f"perplexity {result['perplexity']:.2f} a character; {result['steps']:,} steps, {result['seconds']:.0f} s",
        end="",
    )
    print(f" of training, {result['threads']} threads; {cut:,} poems to learn from")
    if args.json:
        found = {"poems": own, "counts": counts, "model": result, "flags": args.flags}
        args.json.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
