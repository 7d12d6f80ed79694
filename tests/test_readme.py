"""README is true: its blocks run as a user types them, and what it names is there.

A block that follows a line `<!-- run: NAME -->` is executed: shell blocks line by line with the installed `pellucid` in
a folder that holds the small files README speaks of (pairs.tsv, text.txt, runs/dates), Python blocks as one script.
Commands are typed as they stand; behind those that train, flags that `pellucid train --help` documents are added, so
that they train for seconds (SMALLER below). Nothing else is changed.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pellucid.training.recipe import list_recipes

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- run: (\w+) -->\n+```(\w*)\n(.*?)```", README, re.DOTALL)

TINY = "--stack.d-model 16 --stack.n-layers 1 --stack.n-heads 2 --stack.d-ff 32"
QUICK = "--training.warmup 1 --training.precision float32 --training.evaluate-limit 8 --training.checkpoint-every 0"
SMALLER = {
    "train pairs": f"{TINY} {QUICK} --training.steps 5 --training.batch-tokens 500 --generation.max-new 8",
    "train text": f"{TINY} {QUICK} --training.steps 5 --stack.n-kv-heads 1 --data.vocab-size 300 --training.length 32",
    "train dates": f"{TINY} {QUICK} --training.steps 5 --data.examples 300 --data.held-out 12",
    "verify-resume copy": f"{TINY} {QUICK} --data.examples 300 --data.held-out 12",
    "train mlm": f"{TINY} {QUICK} --training.steps 5 --data.vocab-size 200 --training.length 32",
    "train labels": f"{QUICK} --training.steps 5 --training.batch-tokens 200",
}


def typed(line: str) -> str:
    """The line, and what makes it quick where it trains."""
    added = [flags for verb, flags in SMALLER.items() if f"pellucid {verb}" in line]
    return " ".join([line, *added])


def enter(line: str, folder: Path) -> str:
    """One line of shell, as typed in `folder` with the environment's programs on the path; its output."""
    here = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": os.pathsep.join([here, os.environ["PATH"]]), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(shlex.split(line), cwd=folder, env=environment, capture_output=True, timeout=600)
    assert ran.returncode == 0, f"{line}\n{ran.stdout.decode()}\n{ran.stderr.decode()}"
    return ran.stdout.decode("utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a user of README stands: own pairs, own text, and the run `dates`."""
    folder = tmp_path_factory.mktemp("readme")
    words = [f"{a} {b}" for a in ("old", "new", "red", "big") for b in ("dog", "cat", "sea", "man", "fox")]
    (folder / "pairs.tsv").write_text("".join(f"the {w}\t{w.upper()}\n" for w in words * 5), encoding="utf-8")
    text = "".join(f"Once the {a} saw the {b}.\n" for a in words for b in words)
    (folder / "text.txt").write_text(text, encoding="utf-8")
    reviews = [(f"what a {a} {b}", "kind" if a in ("old", "new") else "unkind") for a, b in map(str.split, words)]
    (folder / "reviews.csv").write_text("text,label\n" + "".join(f"{a},{b}\n" for a, b in reviews), encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("name", "language", "block"), BLOCKS, ids=[name for name, *_ in BLOCKS])
def test_a_block_runs(name: str, language: str, block: str, folder: Path) -> None:
    if name in ("api", "see") and not (folder / "runs" / "dates").exists():
        enter(typed("pellucid train dates"), folder)
    lines = [block] if language == "python" else block.strip().splitlines()
    for line in lines:
        command = shlex.join([sys.executable, "-W", "error", "-c", line]) if language == "python" else typed(line)
        assert enter(command, folder).strip() or " train " in line, f"{line} says nothing"


def test_blocks_are_found() -> None:
    assert {"pairs", "text", "labels", "models", "see", "python", "verify", "api"} <= {name for name, *_ in BLOCKS}
    assert README.count("<!-- run: ") == len(BLOCKS), "each mark is followed by a block"


def test_the_table_lists_every_recipe() -> None:
    table = README.split("| recipe |")[1].split("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(list_recipes())


def test_every_command_names_a_verb_and_a_recipe_that_exist() -> None:
    """In README's blocks and in what the Makefile runs or says."""
    from pellucid.cli.main import VERBS

    blocks = "".join(re.findall(r"```\w*\n(.*?)```", README, re.DOTALL))
    named = re.findall(r"(?:^|bin/|\(BIN\)/)pellucid ([a-z-]+) ([\w./$()-]+)", blocks + MAKEFILE, re.MULTILINE)
    assert len(named) > 10
    for verb, what in named:
        assert verb in VERBS, verb
        assert verb not in ("train", "verify-resume") or what in [*list_recipes(), "--help"], what


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith(("http", "#"))]
    assert links and [link for link in links if not (ROOT / link.split("#")[0]).exists()] == []


def test_make_knows_what_is_promised() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert set(re.findall(r"^make (\w+)", README, re.MULTILINE)) <= targets
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony and set(phony[1].split()) == targets
