"""What is tuned by hand at a peer computes what the peer computes; all have the same model; imports are not counted as training."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import measure
from benchmarks.measure import ROOT, Worker
from benchmarks.peers import huggingface, llama, speaking
from benchmarks.works import WORKS

pytestmark = pytest.mark.reference
BUILT = """
import sys
from benchmarks.peers import huggingface
from benchmarks.works import WORKS

def watched(*settings):
    before = set(sys.modules)
    huggingface.bert(*settings)
    print([name for name in set(sys.modules) - before if name.startswith("transformers")])
    raise SystemExit

huggingface.MODELS["BERT"] = watched
huggingface.start({"work": WORKS["e"].tiny().told(), "kind": "BERT", "bf16": False})
"""


@pytest.mark.parametrize(("work", "kind"), [("e", "BERT"), ("d", "Marian"), ("d", "Bart")])
@pytest.mark.parametrize("everywhere", [False, True])
def test_the_loss_at_the_targets_is_the_models_own(work: str, kind: str, everywhere: bool) -> None:
    torch.manual_seed(0)
    model = huggingface.MODELS[kind](WORKS[work].tiny().told(), {"bf16": False}).eval()
    ids, labels = torch.randint(3, 400, (2, 4, 10))
    if not everywhere:
        labels[torch.rand(4, 10) < 0.6] = -100
    batch = {"input_ids": ids, "labels": labels} | ({"decoder_input_ids": ids} if kind != "BERT" else {})
    losses = huggingface.words(model, batch), huggingface.at_targets(huggingface.AtTargets(model), batch)
    torch.testing.assert_close(*losses)
    own, ours = (gradients(loss, model) for loss in losses)
    torch.testing.assert_close(ours, own)
    assert max(gradient.abs().max() for gradient in own) > 0.01


def gradients(loss: torch.Tensor, model: Any) -> list[torch.Tensor]:
    trained = [p for p in model.parameters() if p.requires_grad]
    return [g for g in torch.autograd.grad(loss, trained, allow_unused=True) if g is not None]


def test_the_vocabulary_meets_the_targets_alone() -> None:
    model = huggingface.MODELS["BERT"](WORKS["e"].tiny().told(), {"bf16": False})
    seen: list[int] = []
    model.cls.predictions.decoder.register_forward_hook(lambda _, given, out: seen.append(len(given[0])))
    labels = torch.full((2, 10), -100)
    labels[0, 3] = labels[1, 7] = 5
    huggingface.at_targets(huggingface.AtTargets(model), {"input_ids": torch.ones(2, 10).long(), "labels": labels})
    assert seen == [2]


def test_all_is_imported_before_memory_is_looked_at() -> None:
    assert subprocess.check_output([sys.executable, "-c", BUILT], cwd=ROOT, text=True).strip() == "[]"


def test_llama_cpp_has_a_place_for_every_weight(tmp_path: Path) -> None:
    speaking.make({"folder": str(tmp_path), "tiny": True})
    names = huggingface_names(tmp_path)
    places = {".".join([*layer, llama.NAMES[part], end]) for *layer, part, end in map(llama.layered, names)}
    assert len(places) == len(names) == 4 + 2 * 12
    assert {"token_embd.weight", "output_norm.bias", "blk.1.attn_qkv.bias", "blk.0.ffn_down.weight"} <= places


def huggingface_names(folder: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "numpy") as file:
        return list(file.keys())


@pytest.mark.slow
@pytest.mark.parametrize(("toolkit", "precision"), [("llama.cpp", "f32"), ("CTranslate2", "float32")])
def test_a_peer_with_our_weights_says_what_ours_says(tmp_path: Path, toolkit: str, precision: str) -> None:
    told = {"folder": str(tmp_path), "tiny": True}
    speaking.make(told)
    request = {"do": "say", "batch": 1, "prompt": 9, "new": 12}
    said = []
    for python, how in ((measure.peers(), (toolkit, precision)), (None, ("Pellucid", "float32"))):
        settings = told | dict(zip(("toolkit", "precision"), how, strict=True))
        with Worker("benchmarks.peers.speaking", python, settings) as worker:
            if worker.skipped:
                pytest.skip(worker.skipped)
            said.append(worker.ask(request)["said"])
    assert said[0] == said[1]
