"""What stands in a model folder beside config and weights, for `transformers` and the programs that read its files: how a text becomes ids,
how a picture becomes numbers, how a chat becomes a text, what the labels are called. (The model card is in `card`.)

The rule: these files give what the model was trained on, or they say nothing. Imports no torch.
"""

import copy
from typing import Any

from tokenizers import processors

from pellucid.models.config import ModelConfig
from pellucid.text.tokenizer import Tokenizer


def label_names(config: ModelConfig) -> dict[str, Any]:
    """For config.json."""
    names = {str(i): name for i, name in enumerate(config.labels)}
    return {"id2label": names, "label2id": {name: int(i) for i, name in names.items()}} if names else {}


# --- texts --------------------------------------------------------------------------------------------------------------


def with_edges(tokenizer: Tokenizer, config: ModelConfig) -> Tokenizer:
    """For tokenizer.json: of a BERT, a tokenizer that puts <bos> and <eos> around a text for those who ask it to; `encode` never does."""
    if config.family != "bert" or config.bos_id is None or config.eos_id is None:
        return tokenizer
    library = copy.deepcopy(tokenizer.library)
    bos, eos = _name(tokenizer, config.bos_id), _name(tokenizer, config.eos_id)
    library.post_processor = processors.TemplateProcessing(
        single=[bos, "$A", eos],
        pair=[bos, "$A", eos, "$B:1", f"{eos}:1"],
        special_tokens=[(bos, config.bos_id), (eos, config.eos_id)],
    )
    return Tokenizer(library, tokenizer.roles, companions=tokenizer.companions)


def tokenizer_config(tokenizer: Tokenizer, config: ModelConfig) -> dict[str, Any]:
    """tokenizer_config.json: the special tokens by their roles, and how a chat is written."""
    ids = {name: getattr(tokenizer, f"{name}_id") for name in ("pad", "bos", "eos", "unk", "mask")}
    if config.family == "bert":
        ids |= {"cls": config.bos_id, "sep": config.eos_id}
    specials = {f"{name}_token": _name(tokenizer, i) for name, i in ids.items() if i is not None}
    pair = "source.spm" in tokenizer.companions
    fixed = {
        "tokenizer_class": "MarianTokenizer" if pair else "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    reads = {"model_max_length": config.max_length, "model_input_names": ["input_ids", "attention_mask"]}
    chat = {"chat_template": chat_template(tokenizer)} if tokenizer.answer_id is not None else {}
    return fixed | reads | specials | chat


def chat_template(tokenizer: Tokenizer) -> str:
    """Prompts and answers as the model learnt them, in Jinja, for `apply_chat_template`: users and assistants in turn, and nobody else,
    for words of a system or a tool would be read as a prompt or an answer."""
    start, end = ("".join(_name(tokenizer, i) for i in edge) for edge in tokenizer.prompt_edges)
    eos = _name(tokenizer, tokenizer.eos_id or 0)
    return (
        "{% for message in messages %}"
        "{% if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') %}"
        "{{ raise_exception('this model knows user and assistant in turn, not ' ~ message['role'] ~ ' here') }}{% endif %}"
        "{% if message['content'] is not string %}{{ raise_exception('this model reads text only') }}{% endif %}"
        "{% if message['role'] == 'user' %}" + start + "{{ message['content'] }}"
        "{% else %}" + end + "{{ message['content'] }}" + eos + "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}" + end + "{% endif %}"
    )


def _name(tokenizer: Tokenizer, i: int) -> str:
    return tokenizer.library.id_to_token(i) or ""


# --- pictures -----------------------------------------------------------------------------------------------------------


def preprocessor(config: ModelConfig) -> dict[str, Any]:
    """preprocessor_config.json: how pixels become numbers. Perceiver's is the image processor of `transformers` that cuts out the middle
    first, as large as the shorter side, and then resizes it (bicubic), as pictures are read here; CLIP's and ViT's do not."""
    size = {"height": config.image_size, "width": config.image_size}
    half = [0.5] * config.channels
    return {
        "image_processor_type": "PerceiverImageProcessor",
        "do_convert_rgb": config.channels == 3,
        "do_center_crop": True,
        "crop_size": size,
        "do_resize": True,
        "size": size,
        "resample": 3,  # bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": half,
        "image_std": half,
    }
