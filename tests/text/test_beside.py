"""What files say about a tokenizer: its kind and promise, what goes around a text, roles of special tokens, tokens added."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, decoders, normalizers, pre_tokenizers, processors

from pellucid.errors import DataError
from pellucid.text.tokenizer import Tokenizer, train
from tests.text.streams import check_stream

SMALL = train(["the old dog sees a cat, ünd läuft 12 mal.\n"] * 4, "byte-bpe", 300, specials=["<mask>", "<|end|>"])


def write(folder: Path, **contents: Any) -> Path:
    """Files by name, "." as "__": JSON, or text."""
    for name, content in contents.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


def variant(**parts: Any) -> Tokenizer:
    """SMALL with other parts."""
    tokenizer = Tokenizer(SMALL.library.from_str(SMALL.library.to_str()))
    for name, part in parts.items():
        setattr(tokenizer.library, name, part)
    return Tokenizer(tokenizer.library.from_str(tokenizer.library.to_str()))


WORDS = pre_tokenizers.Split(Regex(r"\s?\p{L}+|\p{N}|[^\p{L}\p{N}]+"), "isolated")
BYTEWISE = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
LLAMA3 = variant(
    pre_tokenizer=pre_tokenizers.Sequence([WORDS, BYTEWISE]),
    post_processor=processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)]),
        ]
    ),
)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_byte_level_kinds(text: str) -> None:
    """Llama 3's and DeepSeek's way to cut keeps every text; Qwen 2's normaliser and CLIP's marks do not promise it."""
    digits = variant(pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Digits(True), WORDS, BYTEWISE]))
    for tokenizer in (LLAMA3, digits):
        assert tokenizer.kind == "byte-bpe" and tokenizer.promises_round_trip
        assert tokenizer.decode(tokenizer.encode(text)) == text
        check_stream(tokenizer, tokenizer.encode(text))
    qwen = variant(pre_tokenizer=LLAMA3.library.pre_tokenizer, normalizer=normalizers.NFC())
    assert qwen.kind == "byte-bpe" and not qwen.promises_round_trip
    prefixed = variant(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True))
    removing = variant(pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "removed"), BYTEWISE]))
    assert not prefixed.promises_round_trip and not removing.promises_round_trip
    assert variant(decoder=decoders.Sequence([decoders.ByteLevel()])).kind == "byte-bpe"


def test_edges() -> None:
    assert LLAMA3.edges == ([1], []) == LLAMA3.prompt_edges
    assert SMALL.edges == ([], []) == SMALL.prompt_edges
    template = processors.TemplateProcessing(
        single="<mask> <bos> $A <eos>", special_tokens=[("<mask>", 4), ("<bos>", 1), ("<eos>", 2)]
    )
    assert variant(post_processor=template).edges == ([4, 1], [2])
    assert variant(post_processor=template).edges[0] != [1]
    asking = Tokenizer(LLAMA3.library).with_specials(["<answer>"])
    assert asking.prompt_edges == ([1], [asking.answer_id])


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_roles_are_what_the_files_say(file: str, tmp_path: Path) -> None:
    SMALL.save(tmp_path)
    told = {
        "pad_token": {"content": "<|end|>", "lstrip": False},
        "eos_token": "<|end|>",
        "bos_token": None,
        "cls_token": None,
        "unk_token": "<none such>",
    }
    (tmp_path / file).write_text(json.dumps(told))
    tokenizer = Tokenizer.load(tmp_path)
    end = SMALL.special("<|end|>")
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id, tokenizer.unk_id) == (end, end, None, SMALL.unk_id)
    assert tokenizer.mask_id == SMALL.mask_id and tokenizer.hash() == SMALL.hash()
    again = Tokenizer.load(tokenizer.save(tmp_path / "saved/tokenizer.json"))
    assert (again.pad_id, again.eos_id, again.bos_id) == (end, end, None) and again.with_specials(["<x>"]).pad_id == end
    (tmp_path / file).write_text(json.dumps({"cls_token": "<mask>", "sep_token": "<|end|>", "add_bos_token": True}))
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.edges) == (SMALL.mask_id, end, ([SMALL.mask_id], []))


@pytest.mark.data
@pytest.mark.parametrize("how", ["added_tokens.json", "added_tokens_decoder"])
def test_added_tokens_beside_a_vocabulary(corpora: Path, tmp_path: Path, how: str) -> None:
    shutil.copy(corpora / "tokenizers/bert-base-uncased/vocab.txt", tmp_path)
    config: dict[str, Any] = {"additional_special_tokens": ["<<ent>>"]}
    if how == "added_tokens_decoder":
        tokens = ((30522, "<<ent>>", True), (30523, "Pellucid", False), (103, "[MASK]", True))
        config[how] = {str(i): {"content": name, "special": special} for i, name, special in tokens}
    else:
        write(tmp_path, added_tokens__json={"Pellucid": 30523, "<<ent>>": 30522})
    write(tmp_path, tokenizer_config__json=config)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.special("<<ent>>") == 30522 and tokenizer.vocab_size == 30524
    assert tokenizer.encode("a Pellucid <<ent>>", specials=True) == [1037, 30523, 30522]
    assert tokenizer.encode("<<ent>>")[0] != 30522 and "Pellucid" not in tokenizer.specials
    write(tmp_path, added_tokens__json={"Pellucid": 40000}, tokenizer_config__json={})
    with pytest.raises(DataError, match="'Pellucid' is said to have id 40000, the vocabulary gives it 30522"):
        Tokenizer.load(tmp_path)
