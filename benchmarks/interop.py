"""Does what the world has trained open here, and what is trained here open there? Every family in both libraries, and what loading costs.

    python benchmarks/interop.py [--data FOLDER] [--only NAME …] [--times 5] [--out docs/interop.md]

In: `transformers` makes a model with random weights and saves it; both open the folder. Out: the same shape, filled anew and saved here;
both open that. FOLDER (of weights, see --data) adds real models. Compared by what `pellucid verify` does: every stage of a padded batch, 16
greedy tokens, 16 tokens by 4 beams. Loading is timed in processes of their own, the two libraries in turn, medians; so is importing.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import pellucid
from pellucid.errors import UserError
from pellucid.inspection.parity import Parity, verify
from pellucid.inspection.subject import random_subject
from pellucid.models import storage
from pellucid.models.build import build

D, LAYERS, HEADS, FF, VOCABULARY = 256, 4, 8, 704, 8000
LLAMA = {"vocab_size": VOCABULARY, "hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
LLAMA |= {"intermediate_size": FF, "num_key_value_heads": 4, "max_position_embeddings": 512}
BERT = {name: value for name, value in LLAMA.items() if name != "num_key_value_heads"}
PICTURES = {name: value for name, value in BERT.items() if name not in ("vocab_size", "max_position_embeddings")}
PICTURES |= {"image_size": 64, "patch_size": 8}
SIDES = {"d_model": D, "encoder_layers": LAYERS, "decoder_layers": LAYERS, "vocab_size": VOCABULARY}
SIDES |= {
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": FF,
    "decoder_ffn_dim": FF,
}
T5 = {"d_model": D, "d_kv": 32, "d_ff": FF, "num_layers": LAYERS, "num_heads": HEADS, "vocab_size": VOCABULARY}
T5 |= {"decoder_start_token_id": 0, "initializer_factor": 0.1}  # 1.0 would give logits of the size of tens
IDS = {
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
    "bos_token_id": None,
    "forced_eos_token_id": None,
}


@dataclass(frozen=True)
class Case:
    """A row. architecture: their class, made with `sizes`; or folder: real weights, below --data."""

    architecture: str = ""
    sizes: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""


CASES = {
    "Llama": Case("LlamaForCausalLM", LLAMA),
    "Llama, tied, scaled rope": Case(
        "LlamaForCausalLM",
        LLAMA
        | {
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5},
        },
    ),
    "Mistral, window 12": Case("MistralForCausalLM", LLAMA | {"sliding_window": 12}),
    "Qwen2": Case("Qwen2ForCausalLM", LLAMA),
    "Qwen3": Case("Qwen3ForCausalLM", LLAMA | {"head_dim": 64}),
    "GPT-2": Case("GPT2LMHeadModel", {"vocab_size": VOCABULARY, "n_embd": D, "n_layer": LAYERS, "n_head": HEADS}),
    "GPT-2, 124M": Case("GPT2LMHeadModel"),
    "BERT, masked words": Case("BertForMaskedLM", BERT),
    "BERT, labels": Case("BertForSequenceClassification", BERT | {"num_labels": 3}),
    "BERT, tags": Case("BertForTokenClassification", BERT | {"num_labels": 5}),
    "BERT, vector": Case("BertModel", BERT),
    "RoBERTa-PreLayerNorm (BERT, norms first)": Case("RobertaPreLayerNormForMaskedLM", BERT | {"pad_token_id": 0}),
    "DistilBERT": Case(
        "DistilBertForMaskedLM",
        {"dim": D, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": FF, "vocab_size": VOCABULARY},
    ),
    "ViT": Case("ViTForImageClassification", PICTURES | {"num_labels": 10}),
    "Marian": Case("MarianMTModel", SIDES | IDS | {"activation_function": "relu", "scale_embedding": True}),
    "Pegasus (Marian, norms first)": Case("PegasusForConditionalGeneration", SIDES | IDS | {"scale_embedding": True}),
    "BART": Case("BartForConditionalGeneration", SIDES | IDS),
    "T5": Case("T5ForConditionalGeneration", T5),
    "T5 1.1": Case(
        "T5ForConditionalGeneration", T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    ),
    "stories260K (Llama)": Case(folder="stories260K"),
    "bart-g2p-us (BART)": Case(folder="bart-g2p-us"),
    "all-MiniLM-L6-v2 (BERT)": Case(folder="all-MiniLM-L6-v2"),
}


TIMED = ("Llama", "GPT-2, 124M", "all-MiniLM-L6-v2 (BERT)")


def main() -> None:
    """Writes the tables, and prints each row."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--data", type=Path, help="a folder of real weights: stories260K, bart-g2p-us, all-MiniLM-L6-v2")
    flags.add_argument("--only", nargs="+", choices=CASES, metavar="NAME")
    flags.add_argument("--times", type=int, default=5, help="how often loading and importing are timed")
    flags.add_argument("--out", type=Path, default=Path("docs/interop.md"))
    flags.add_argument("--load", nargs=2, metavar=("LIBRARY", "FOLDER"), help=argparse.SUPPRESS)
    args = flags.parse_args()
    if args.load:
        print(json.dumps(load_alone(args.load[0], Path(args.load[1]))))
        return
    torch.set_num_threads(1)
    args.timed, lines = [], [head(args)]
    for row in rows(args):
        print(row, flush=True)
        lines.append(row)
    how = f"medians of {args.times} processes each, in turn"
    lines += [
        "",
        f"Loading and one short pass once all is imported, and the peak memory of the process, library included: {how}.",
        "",
    ]
    lines += ["| | load, s: ours | theirs | peak, MB: ours | theirs |", "|---|---|---|---|---|", *args.timed]
    lines += ["", *imports(args.times), ""]
    print("\n".join(lines[-(len(args.timed) + 11) :]))
    args.out.write_text("\n".join(lines), encoding="utf-8")


def head(args: argparse.Namespace) -> str:
    """What stands above the table."""
    import transformers

    command = "python benchmarks/interop.py" + (" --data FOLDER" if args.data else "")
    return (
        f"""# Interoperability with `transformers`

`{command}`: pellucid {pellucid.__version__}, transformers {transformers.__version__}, torch {torch.__version__},
Python {platform.python_version()}, {len(os.sched_getaffinity(0))} cores, one thread, float32.

*In*: a model that `transformers` made (random weights; the last rows: real ones) and saved, opened by both. *Out*: a model of the same
shape, filled with other random weights and saved here (real ones: opened and saved), opened by both, no key missing. The figures are the
largest |ours − theirs| / max(1, |theirs|) over embedding, every block, final states, logits and loss of a padded batch (what is padding
aside); 1e-5 is the promise. Greedy and 4 beams (theirs with early_stopping="never", which is how beams end here): 16 new tokens, ours in a
batch, theirs a row at a time, in and out."""
        + """

| family | class | parameters | in | out | greedy | 4 beams |
|---|---|---|---|---|---|---|"""
    )


def rows(args: argparse.Namespace) -> Iterator[str]:
    """A line for each case; one that cannot be read yet says why."""
    for name, case in CASES.items():
        wanted = (
            name in args.only
            if args.only
            else bool(case.architecture or (args.data and (args.data / case.folder).is_dir()))
        )
        if not wanted:
            continue
        with tempfile.TemporaryDirectory(prefix="pellucid-interop-") as work:
            try:
                yield row(name, case, args, Path(work))
            except UserError as error:
                yield (
                    f"| {name} | {case.architecture} | | {error.problem.splitlines()[0].replace(work, '')} " + "| " * 4
                )


def row(name: str, case: Case, args: argparse.Namespace, work: Path) -> str:
    """In and out; and what loading costs, for the second table."""
    entering, leaving = (args.data / case.folder if case.folder else work / "in"), work / "out"
    if case.architecture:
        made_there(case, entering)
    model, tokenizer = storage.load(entering)
    storage.save(model if case.folder else build(model.config, seed=1), leaving, tokenizer)  # type: ignore[arg-type]
    n_parameters = sum(p.numel() for p in model.parameters())
    found = [verify(entering), verify(leaving)]
    beams = [verify(folder, beam=4) for folder in (entering, leaving)] if found[0].tokens_equal is not None else []
    cells = [name, f"`{found[0].architecture}`", f"{n_parameters:,}", *map(largest, found)]
    cells += [agreed([one.tokens_equal for one in found]), agreed([one.tokens_equal for one in beams])]
    if name in TIMED:
        args.timed.append(f"| {' | '.join([name, *costs(entering, args.times)])} |")
    return f"| {' | '.join(cells)} |"


def made_there(case: Case, folder: Path) -> None:
    """Their model with random weights, saved by them."""
    import transformers

    transformers.logging.disable_progress_bar()
    kind = getattr(transformers, case.architecture)
    torch.manual_seed(0)
    model = kind(kind.config_class(**case.sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # norms and biases too, or half of the table of names would not be tested
                parameter += 0.02 * torch.randn(parameter.shape)
    model.save_pretrained(folder)


def largest(found: Parity) -> str:
    """The largest relative difference, or where it is too large."""
    if found.missing_keys or found.first_difference:
        return f"**{found.first_difference or 'missing keys'}**"
    return f"{max(stage.max_rel_difference or 0.0 for stage in found.stages):.1e}"


def agreed(both: list[bool | None]) -> str:
    return "–" if not both or None in both else "equal" if all(both) else "**different**"


# --- time and memory -----------------------------------------------------------------------------------------------------


def costs(folder: Path, times: int) -> list[str]:
    """Seconds and peak megabytes of loading, ours and theirs."""
    command = [sys.executable, __file__, "--load"]
    found: dict[str, list[dict[str, float]]] = {"pellucid": [], "transformers": []}
    for _ in range(times):
        for library, measured in found.items():
            ran = subprocess.run([*command, library, str(folder)], capture_output=True, text=True, check=True)
            measured.append(json.loads(ran.stdout.splitlines()[-1]))
    middle = {
        (library, what): statistics.median(one[what] for one in measured)
        for library, measured in found.items()
        for what in ("seconds", "megabytes")
    }
    return [f"{middle[library, 'seconds']:.2f}" for library in found] + [
        f"{middle[library, 'megabytes']:,.0f}" for library in found
    ]


def load_alone(library: str, folder: Path) -> dict[str, float]:
    """In a process of its own, all imported: how long loading and a first pass of 8 tokens (or an image) take, and the most memory it came
    to. Without the pass, weights that are only mapped would not have been read."""
    torch.set_num_threads(1)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if library == "pellucid":
        load = pellucid.load
        begin = time.perf_counter()
        model = load(folder, torch.float32, "cpu").model
        given = random_subject(model.config, 8).inputs  # type: ignore[arg-type]
    else:
        import transformers

        kind = getattr(transformers, config["architectures"][0])
        begin = time.perf_counter()
        model = kind.from_pretrained(folder, dtype=torch.float32)
        names = {"ids": "input_ids", "source": "input_ids", "target": "decoder_input_ids", "images": "pixel_values"}
        given = {names[name]: x for name, x in random_subject(storage.read_config(folder)[0], 8).inputs.items()}
    with torch.no_grad():
        model(**given)
    seconds = time.perf_counter() - begin
    peak = re.search(
        r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()
    )  # ru_maxrss would count the parent's, too
    return {"seconds": seconds, "megabytes": int(peak[1]) / 1024 if peak else float("nan")}


def imports(times: int) -> list[str]:
    """How long it takes until there is something to call."""
    statements = (
        "import torch",
        "import pellucid",
        "import pellucid; pellucid.load",
        "import transformers",
        "from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM",
    )
    found: dict[str, list[float]] = {statement: [] for statement in statements}
    for _ in range(times):
        for statement, measured in found.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            measured.append(time.perf_counter() - begin)
    lines = [f"| `{statement}` | {statistics.median(measured):.2f} |" for statement, measured in found.items()]
    return [
        f"A Python process that only imports, seconds (median of {times}, in turn):",
        "",
        "| | s |",
        "|---|---|",
        *lines,
    ]


if __name__ == "__main__":
    main()
