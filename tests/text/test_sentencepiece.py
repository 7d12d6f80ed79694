"""SentencePiece's files: cut as `transformers` and the sentencepiece package cut, of models trained here; damaged ones refused."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from pellucid.errors import DataError, UserError
from pellucid.text import foreign
from pellucid.text.charsmap import Charsmap
from pellucid.text.sentencepiece import read_model
from pellucid.text.tokenizer import Tokenizer
from tests.text.multilingual import clean_lines, soiled_lines
from tests.text.streams import check_stream

pytestmark = [
    pytest.mark.data,
    pytest.mark.reference,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*sacremoses"),  # transformers' Marian asks for it; its default cleaning is none
]

# The flags of the models that the world has
LLAMA = dict(
    model_type="bpe", vocab_size=2000, byte_fallback=True, normalization_rule_name="identity", split_digits=True,
    add_dummy_prefix=True, remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
)  # fmt: skip
T5 = dict(model_type="unigram", vocab_size=2000, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
MARIAN = dict(model_type="unigram", vocab_size=1000)


def learn(file: Path, lines: list[str], flags: dict[str, Any]) -> Any:
    """Trains a model, writes it, and gives the package's own reader of it."""
    import sentencepiece

    file.parent.mkdir(exist_ok=True)
    with file.open("wb") as made:
        options = {"character_coverage": 0.995, "minloglevel": 2, **flags}
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=made, **options)
    return sentencepiece.SentencePieceProcessor(model_file=str(file))


@pytest.fixture(scope="module")
def lines(corpora: Path) -> list[str]:
    return soiled_lines(corpora)


@pytest.fixture(scope="module")
def models(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Folders as the hub has them, and the readers of the sentencepiece package."""
    folder, clean = tmp_path_factory.mktemp("spm"), clean_lines(corpora)
    mixed = [*clean["en"], *clean["fr"], *clean["de"], *clean["zh"][:300]]  # most of the ideographs stay unknown
    random.Random(0).shuffle(mixed)
    readers = {
        "llama": learn(folder / "llama/tokenizer.model", mixed, LLAMA),
        "t5": learn(folder / "t5/spiece.model", mixed, T5),
        "source": learn(folder / "marian/source.spm", clean["en"], MARIAN),
        "target": learn(folder / "marian/target.spm", clean["fr"] + clean["de"], MARIAN),
    }
    # as Marian's: what its two models make of the training text; one in seven is left out, and is <unk>
    pieces = {piece for side, names in (("source", ["en"]), ("target", ["fr", "de"])) for name in names
              for cut in readers[side].encode(clean[name], out_type=str) for piece in cut}  # fmt: skip
    listed = [
        "</s>",
        "<unk>",
        *(p for i, p in enumerate(sorted(pieces - {"</s>", "<unk>"})) if i % 7),
        ">>fra<<",
        "<pad>",
    ]
    (folder / "marian/vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(listed)}))
    return folder, readers


def differing(ours: list[list[int]], theirs: list[list[int]], lines: list[str]) -> list[str]:
    return [line for a, b, line in zip(ours, theirs, lines, strict=True) if a != b]


def test_llama(models: Any, lines: list[str], tmp_path: Path) -> None:
    from transformers import LlamaTokenizer

    folder, readers = models
    ours, theirs = Tokenizer.load(folder / "llama"), LlamaTokenizer.from_pretrained(folder / "llama")
    ids = ours.encode_batch(lines)
    assert differing(ids, theirs(lines, add_special_tokens=False).input_ids, lines) == []
    # SentencePiece puts a space before the text even if it begins with one
    other = [line for line in lines if not line.startswith((" ", "▁"))]
    assert differing(ours.encode_batch(other), readers["llama"].encode(other), other) == []
    assert (ours.kind, ours.vocab_size, ours.edges, ours.prompt_edges) == (
        "byte-fallback-bpe",
        2000,
        ([1], []),
        ([1], []),
    )
    assert (ours.unk_id, ours.bos_id, ours.eos_id, ours.pad_id) == (0, 1, 2, None) and ours.edges[0] == [ours.bos_id]
    assert not ours.promises_round_trip and ours.decode(ours.encode("a ▁ b")) == "a   b"  # ▁ is lost, nothing else
    assert all(
        ours.decode(i) == line for i, line in zip(ids, lines, strict=True) if "▁" not in line and line[:1] != " "
    )
    theirs.save_pretrained(tmp_path)
    assert Tokenizer.load(tmp_path / "tokenizer.json").encode_batch(lines) == ids
    continues, continued = ours.word_joins()
    joined = [
        continues[b] and continued[a]
        for a, b in zip(ours.encode("unusually"), ours.encode("unusually")[1:], strict=False)
    ]
    assert joined and all(joined) and not continues[ours.encode("the")[0]]


def test_llamas_older_file_is_sentencepiece(models: Any, lines: list[str], tmp_path: Path) -> None:
    """tokenizer.json with a normaliser in place of Metaspace: every text gets its space."""
    folder, readers = models
    state = json.loads(Tokenizer.load(folder / "llama").library.to_str())
    cleaning = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    state |= {"pre_tokenizer": None, "normalizer": {"type": "Sequence", "normalizers": cleaning}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    ours = Tokenizer.load(tmp_path)
    assert differing(ours.encode_batch(lines), readers["llama"].encode(lines), lines) == []
    assert ours.kind == "byte-fallback-bpe" and not ours.promises_round_trip
    draw = random.Random(0)
    for line in draw.sample(lines, 100):
        check_stream(ours, ours.encode(line))
        check_stream(ours, draw.choices(range(ours.vocab_size), k=30))


def test_t5(models: Any, lines: list[str], tmp_path: Path) -> None:
    from transformers import T5Tokenizer

    folder, readers = models
    ours, theirs = Tokenizer.load(folder / "t5"), T5Tokenizer.from_pretrained(folder / "t5")
    ids = ours.encode_batch(lines)
    assert differing(ids, theirs(lines, add_special_tokens=False).input_ids, lines) == []
    # see the module: white space that the normaliser keeps, and accents behind what is replaced
    other = [line for line in lines if not set("\x85\u0301\ufe0f") & set(line)]
    assert differing(ours.encode_batch(other), readers["t5"].encode(other), other) == [] and len(other) > 10_000
    assert (ours.kind, ours.vocab_size, ours.edges) == ("unigram", 2100, ([], [1]))
    assert (ours.pad_id, ours.eos_id, ours.unk_id, ours.bos_id) == (0, 1, 2, None)
    assert ours.special("<extra_id_0>") == 2099 == theirs.convert_tokens_to_ids("<extra_id_0>")
    masked = "the <extra_id_0> dog</s> sees <extra_id_1>."
    assert ours.encode(masked, specials=True) == theirs(masked, add_special_tokens=False).input_ids
    plain = readers["t5"].encode(masked)
    assert ours.encode(masked) == plain == ours.encode_batch([masked])[0] and not {1, 2099, 2098} & set(plain)
    theirs.save_pretrained(tmp_path)
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert again.encode_batch([*lines, masked]) == [*ids, plain] and again.edges == ours.edges
    for line in random.Random(0).sample(lines, 100):
        check_stream(ours, ours.encode(line))
    (tmp_path / "tokenizer.json").unlink()
    shutil.copy(folder / "t5/spiece.model", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5TokenizerFast", "extra_ids": 5}')
    assert Tokenizer.load(tmp_path).vocab_size == 2005
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    with pytest.raises(DataError, match="spiece.model: XLMRobertaTokenizer reads texts otherwise"):
        Tokenizer.load(tmp_path)


def test_marian(models: Any, lines: list[str], tmp_path: Path) -> None:
    from transformers import MarianTokenizer

    folder, _ = models
    ours, theirs = Tokenizer.load(folder / "marian"), MarianTokenizer.from_pretrained(folder / "marian")
    lines = [*lines, ">>fra<< Hello, you!", ">>fra<<Hello", "ß", "ßß ü a"]
    ids, target_ids = ours.encode_batch(lines), ours.target.encode_batch(lines)
    assert differing(ids, theirs(lines, add_special_tokens=False).input_ids, lines) == []
    assert differing(target_ids, theirs(text_target=lines, add_special_tokens=False).input_ids, lines) == []
    vocab = json.loads((folder / "marian/vocab.json").read_text())
    assert ours.vocab_size == ours.target.vocab_size == len(vocab) == len(theirs) and ours.target.target is ours.target
    assert ours.tokens(range(len(vocab))) == list(vocab) == ours.target.tokens(range(len(vocab)))
    assert ids[-4][0] == vocab[">>fra<<"] and ids != target_ids
    assert (ours.edges, ours.eos_id, ours.unk_id, ours.bos_id) == (([], [0]), 0, 1, None) and ours.pad_id == vocab[
        "<pad>"
    ]
    assert not {0, vocab["<pad>"]} & set(ours.encode("a </s> b <pad>"))
    french = [line for line in lines[6000:6500] if line.isascii()]
    for line in french:
        row = ours.target.encode(line)
        check_stream(ours.target, row)
        assert ours.target.decode(row).rstrip() == theirs.decode(row, skip_special_tokens=True)
    with pytest.raises(UserError, match="one of a pair"):
        ours.with_specials(["<answer>"])

    ours.save(tmp_path / "tokenizer.json")
    reloaded = MarianTokenizer.from_pretrained(tmp_path)
    assert reloaded(lines).input_ids == [[*row, 0] for row in ids]
    for name in ("source.spm", "target.spm", "vocab.json"):
        (tmp_path / name).unlink()
    again = Tokenizer.load(tmp_path)
    assert again.encode_batch(lines) == ids and again.target.encode_batch(lines) == target_ids
    assert again.hash() == ours.hash() != again.target.hash() and again.edges == ours.edges


def test_a_pair_of_which_something_is_missing_is_named(models: Any, tmp_path: Path) -> None:
    shutil.copytree(models[0] / "marian", tmp_path, dirs_exist_ok=True)
    vocab = (tmp_path / "vocab.json").read_text()
    shifted, gap, renamed = (
        vocab.replace(": 5,", ": 6,"),
        vocab.replace(": 5,", ": 9999,"),
        vocab.replace("</s>", "<s>"),
    )
    for text in (shifted, gap, renamed, vocab[:99], "[]", "{}"):
        (tmp_path / "vocab.json").write_text(text)
        with pytest.raises(DataError, match="vocab.json"):
            Tokenizer.load(tmp_path)
    (tmp_path / "target.spm").unlink()
    with pytest.raises(DataError, match="target.spm: missing"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("name", ["llama/tokenizer.model", "t5/spiece.model"])
def test_damaged_files_are_refused_or_work(models: Any, name: str, tmp_path: Path, capfd: Any) -> None:
    """Cut off or changed anywhere: an error that names the file, or a tokenizer that cuts every text; never a crash."""
    good, file = (models[0] / name).read_bytes(), tmp_path / Path(name).name
    draw, refused = random.Random(0), 0
    table = good.find(read_model(models[0] / name).charsmap)
    for round in range(150):
        data = bytearray(good[: draw.randrange(len(good))] if round % 3 == 0 else good)
        lowest, highest = (table, min(len(data), table + 170_000)) if round % 3 == 1 and table > 0 else (0, len(data))
        for _ in range(draw.choice((1, 20)) if round % 3 else 0):
            data[draw.randrange(lowest, highest)] = draw.randrange(256)
        file.write_bytes(data)
        try:
            tokenizer = Tokenizer.load(file)
        except DataError as error:
            assert file.name in str(error)
            refused += 1
            continue
        for text in ("Ünïted ½\u0301 ﬁ 春眠 </s> \x00", "".join(map(chr, range(1, 0x3000)))):
            tokenizer.decode(tokenizer.encode(text))
    assert refused > 50 and "panicked" not in capfd.readouterr().err
    for garbage in (b"", b"\0", b"\xff" * 1000, b"garbage", good + b"\x0a\x83\x10\x0a\x80\x10" + b"a" * 2048):
        file.write_bytes(garbage)
        with pytest.raises(DataError, match=f"{file.name}: damaged"):
            Tokenizer.load(file)
    with file.open("wb") as absurd:
        absurd.truncate(foreign.LARGEST + 1)
    with pytest.raises(DataError, match="too large"):
        Tokenizer.load(file)


def test_the_table_of_replacements(models: Any, lines: list[str]) -> None:
    """What stands between a character and its accent is removed again: the table gives what SentencePiece's normaliser gives."""
    folder, readers = models
    table = Charsmap(read_model(folder / "t5/spiece.model").charsmap)
    assert table.replace("Ａ\u0301x e\u0301 ½\u0301").replace("\x01", "") == "Áx é 1⁄2\u0301"
    marked = [line for line in lines if table.marked.search(line)]
    assert len(marked) > 100 and table.replace("plain, ünmarked") == "plain, ünmarked"
    for line in marked:
        cleaned = " ".join(filter(None, table.replace(line).replace("\x01", "").split(" ")))
        assert "▁" + cleaned.replace(" ", "▁") == readers["t5"].normalize(line), line
