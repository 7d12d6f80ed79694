"""Question: how long until something happens? Every command from a cold process, whose files the system has read before.

Command: `python -m benchmarks startup`

Seconds of a whole process, from its start to its end; medians, all in turn. The small model is a Llama-like one of the recipe
`text` (5.6 million parameters), trained for one step; Hugging Face opens the very same folder and says as many tokens.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.measure import Numbers

ROUNDS, TOKENS = 7, 50
GOALS = {"import": 0.1, "--help": 0.2, "train --help": 0.2, "generate": 2.5}
"""Seconds."""
PROMPT = "the mouse"
GENERATE = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
ids = tokenizer(sys.argv[2], return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids, max_new_tokens=int(sys.argv[3]), do_sample=True)[0]))
"""
IMPORTS = {
    "import": {"ours": "import pellucid", "transformers": "import transformers", "LitGPT": "import litgpt"},
    "import a model": {
        "ours": "from pellucid.models.gpt import GPT",
        "torch": "import torch",
        "transformers": "from transformers import GPT2LMHeadModel",
        "LitGPT": "from litgpt.model import GPT",
    },
}
"""Work -> toolkit -> the whole program. Packages stand beside packages, though some import lazily and some all at once; a model's class
beside a model's class, and torch alone as the floor of both."""
COUNTING = "".join(f"the mouse counts {i} of {i * i} grains and the cat {i % 7} birds\n" for i in range(3000))

Commands = dict[str, dict[str, list[str]]]


def run(quick: bool) -> dict[str, Any]:
    """Each command of ours and theirs, in turn."""
    with tempfile.TemporaryDirectory(prefix="pellucid-benchmark-") as folder:
        works = {
            name: timed(name, commands, 1 if quick else ROUNDS, 0 if quick else 1)
            for name, commands in all_commands(Path(folder), quick).items()
        }
    return measure.result("startup", works, {}, quick)


def table(result: dict[str, Any]) -> str:
    """For docs/performance.md."""
    return measure.markdown(result)


def all_commands(folder: Path, quick: bool) -> dict[str, Commands]:
    """Work -> toolkit -> what is started -> its command."""
    us, them = [sys.executable], [measure.peers()]
    pellucid = [*us, "-m", "pellucid"]
    works = {work: imports(work) for work in IMPORTS} | {
        "--help": {"ours": {"": [*pellucid, "--help"]}, "LitGPT": {"litgpt --help": [*them, "-m", "litgpt", "--help"]}},
        "train --help": {"ours": {"": [*pellucid, "train", "--help"]}},
    }
    if names := measure.wanted([*works, "generate"]):
        works = {name: works.get(name, {}) for name in names}
    if "generate" in works:
        model, tokens = small_model(folder, quick), str(2 if quick else TOKENS)
        ours = [*pellucid, "generate", model, PROMPT, "--max-new", tokens]
        theirs = [*them, "-c", GENERATE, f"{model}/model", PROMPT, tokens]
        works["generate"] = {"ours": {"": ours}, "transformers": {"from_pretrained, generate": theirs}}
    return {
        name: {toolkit: c for toolkit, c in of.items() if toolkit == "ours" or measure.matches(toolkit)}
        for name, of in works.items()
    }


def imports(work: str) -> Commands:
    """The programs of a work; torch alone is ours."""
    found: Commands = {}
    for toolkit, text in IMPORTS[work].items():
        python = sys.executable if toolkit in ("ours", "torch") else measure.peers()
        found[toolkit] = {"" if toolkit == "ours" else text: [python, "-c", text]}
    return found


def small_model(folder: Path, quick: bool) -> str:
    """A run of the recipe `text` after one step."""
    (folder / "text.txt").write_text(COUNTING, encoding="utf-8")
    small = ["--stack.d-model", "32", "--stack.d-ff", "64", "--stack.n-layers", "1"] if quick else []
    words = ["train", "text", "--data", str(folder / "text.txt"), "--out", str(folder / "run"), "--training.steps", "1"]
    words += ["--training.batch-size", "1", "--training.evaluate-limit", "1", *small]
    done = subprocess.run([sys.executable, "-m", "pellucid", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"pellucid {' '.join(words)}:\n{done.stderr}")
    return str(folder / "run")


def timed(name: str, commands: Commands, rounds: int, before: int) -> dict[str, Any]:
    """Seconds of each command of a work, in turn; `before` times without counting, so that all files are in memory."""
    found: dict[tuple[str, str], list[float]] = {(toolkit, what): [] for toolkit, of in commands.items() for what in of}
    failed: dict[tuple[str, str], str] = {}
    for turn in range(before + rounds):
        for key in [key for key in found if key not in failed]:
            took = seconds(commands[key[0]][key[1]])
            if isinstance(took, str):
                failed[key] = took
            elif turn >= before:
                found[key].append(took)
    numbers: dict[str, dict[str, Numbers]] = {toolkit: {} for toolkit in commands}
    for key, took in found.items():
        numbers[key[0]][key[1]] = {"skipped": failed[key]} if key in failed else measure.summary(took, "seconds")
    ours, goal = numbers.pop("ours")[""], GOALS.get(name)
    ratios = measure.ratios(ours, numbers, higher_is_better=False)
    return {"what": f"(goal: {goal} s)" if goal else "", "ours": ours, "peers": numbers, "ratios": ratios}


def seconds(command: list[str]) -> float | str:
    """Of one process, or why there was none."""
    if not command[0]:
        return "PELLUCID_PEERS names no Python with the peers"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""}
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    took = time.perf_counter() - begin
    return (done.stderr.strip().splitlines() or ["it failed without a word"])[-1] if done.returncode else took
