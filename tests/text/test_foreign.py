"""Tokenizers that others made, on their own files."""

import random
import shutil
from pathlib import Path

import pytest

from pellucid.errors import DataError
from pellucid.text import foreign
from pellucid.text.tokenizer import Tokenizer
from tests.text.streams import check_stream


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
