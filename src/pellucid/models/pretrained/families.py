"""All foreign families, by the `model_type` of their config.json, and which of them a model of ours is."""

from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.bart import BART
from pellucid.models.pretrained.bert import BERT, DISTILBERT
from pellucid.models.pretrained.family import Family
from pellucid.models.pretrained.gpt2 import GPT2
from pellucid.models.pretrained.llama import LLAMA, MISTRAL, QWEN2, QWEN3
from pellucid.models.pretrained.marian import MARIAN
from pellucid.models.pretrained.pegasus import PEGASUS
from pellucid.models.pretrained.roberta_prelayernorm import ROBERTA_PRELAYERNORM
from pellucid.models.pretrained.t5 import T5
from pellucid.models.pretrained.vit import VIT, VIT_MAE

SIDES = (MARIAN, PEGASUS, BART, T5)
ENCODERS = (DISTILBERT, BERT, ROBERTA_PRELAYERNORM)

FOREIGN: dict[str, Family] = {
    family.model_type: family for family in (LLAMA, MISTRAL, QWEN2, QWEN3, GPT2, *SIDES, *ENCODERS, VIT_MAE, VIT)
}


def home(config: ModelConfig) -> tuple[Family | None, list[str]]:
    """The foreign family that a model of ours is one of; None where there is none, and the settings that left the nearest."""
    alike = [family for family in FOREIGN.values() if family.standard["family"] == config.family]
    if not alike:
        return None, [f"family = {config.family!r}"]
    strays = [family.strays(config) for family in alike]
    fewest = min(range(len(alike)), key=lambda i: len(strays[i]))
    return (None if strays[fewest] else alike[fewest]), strays[fewest]
