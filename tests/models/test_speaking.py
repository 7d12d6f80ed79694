"""How a folder says that its model speaks: read, named where it is not done, written so that `transformers` gives the same answer."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pellucid
from pellucid.errors import DataError
from pellucid.generation.options import GenerationOptions, of_folder, to_folder
from pellucid.models import speaking, storage
from pellucid.models.build import build
from pellucid.models.pretrained.families import home
from pellucid.text.tokenizer import train
from tests.families import ALL
from tests.models.parity import shaken
from tests.runs import TEXT, copy_recipe
from tests.runs import train as run

KNOWN = [name for name, c in ALL.items() if c.family in ("gpt", "seq2seq") and home(c)[0]]
TEXTS = ["the old dog", "the cat sees", "a new man sees the red sea and the old cat"]
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "penalty": {"repetition_penalty": 1.4},
    "least": {"min_new": 8, "no_repeat": 2, "force_end": True},
    "beams": {"beam": 4, "length_penalty": 2.0},
    "heuristic": {"beam": 3, "length_penalty": 2.5, "stopping": "heuristic"},
    "full": {"beam": 3, "length_penalty": 2.5, "stopping": "full"},
    "short beams": {"beam": 3, "length_penalty": 0.3, "repetition_penalty": 1.5, "min_new": 3},
    "all": {"beam": 4, "length_penalty": -0.5, "no_repeat": 2, "min_new": 5, "force_end": True},
}


def written(name: str, folder: Path, options: GenerationOptions, spare: int = 40) -> Any:
    """A folder of ours with a tokenizer and `spare` rows of the table that no token has."""
    tokenizer = train(TEXT.splitlines(), "byte-bpe", 280)
    size = tokenizer.vocab_size + spare
    twice = {"decoder_vocab_size": size} if ALL[name].decoder_vocab_size else {}
    model = shaken(build(replace(ALL[name], vocab_size=size, **twice), 1), 1, by=0.3)
    storage.save(model, folder, tokenizer, "", to_folder(model.config, options))
    return model


def said_by_theirs(folder: Path, family: str) -> list[str]:
    """As a user would ask: nothing is told but the text."""
    import transformers

    kind = transformers.AutoModelForSeq2SeqLM if family == "seq2seq" else transformers.AutoModelForCausalLM
    model, tokenizer = kind.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)
    texts = []
    for text in TEXTS:
        given = tokenizer(text, return_tensors="pt")
        ids = model.generate(**given)[0][0 if family == "seq2seq" else given.input_ids.shape[1] :]
        texts.append(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    return texts


@pytest.mark.reference
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", KNOWN)
def test_a_plain_generate_of_theirs_is_our_answer(name: str, way: str, tmp_path: Path) -> None:
    written(name, tmp_path, GenerationOptions(max_new=14, **WAYS[way]))
    ours = pellucid.load(tmp_path)
    said = [one.text for one in ours.generate(TEXTS)]
    assert said == said_by_theirs(tmp_path, ours.config.family) and any(said)


@pytest.mark.reference
@pytest.mark.parametrize("name", KNOWN)
def test_rows_without_a_token_are_never_said_and_leave_no_trace(name: str, tmp_path: Path) -> None:
    model = written(name, tmp_path, GenerationOptions(max_new=12), spare=300)  # most of what it could say is nothing
    assert storage.load(tmp_path)[0].config == model.config
    assert [one.text for one in pellucid.load(tmp_path).generate(TEXTS)] == said_by_theirs(
        tmp_path, model.config.family
    )


@pytest.mark.reference
@pytest.mark.parametrize("way", [*WAYS.values(), {"temperature": 0.7, "top_p": 0.9}, {"temperature": 1.0, "top_k": 5}])
def test_transformers_writes_the_file_again_without_complaint(way: dict[str, Any], tmp_path: Path) -> None:
    import transformers

    written("bart", tmp_path, options := GenerationOptions(max_new=14, **way))
    config = transformers.GenerationConfig.from_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config.validate(strict=True)
        config.save_pretrained(tmp_path)
    assert of_folder(tmp_path, storage.read_config(tmp_path)[0]) == (options, {})


ways = st.builds(
    GenerationOptions,
    max_new=st.integers(1, 31),
    min_new=st.integers(0, 9),
    no_repeat=st.integers(0, 4),
    force_end=st.booleans(),
    repetition_penalty=st.sampled_from([1.0, 0.5, 1.3]),
) | st.builds(
    GenerationOptions,
    temperature=st.sampled_from([0.3, 1.0]),
    top_k=st.integers(0, 60),
    top_p=st.sampled_from([0.5, 1.0]),
)
ways = ways | st.builds(
    GenerationOptions,
    beam=st.integers(2, 5),
    n_best=st.integers(1, 2),
    stopping=st.sampled_from(["never", "heuristic", "full"]),
)


@given(ways, st.sampled_from(KNOWN))
def test_what_is_written_is_read(options: GenerationOptions, name: str) -> None:
    config = replace(ALL[name], max_length=250)
    said = speaking.written(vars(options), config)
    assert GenerationOptions(**speaking._options(said, config)) == options and speaking._others(said, config) == {}


def told(folder: Path, name: str = "llama", **fields: Any) -> tuple[GenerationOptions, dict[str, Any]]:
    (folder / speaking.FILE).write_text(json.dumps(fields))
    return of_folder(folder, ALL[name])


def test_sampling_counts_only_where_it_is_asked_for(tmp_path: Path) -> None:
    numbers = {"temperature": 0.6, "top_k": 20, "top_p": 0.8}
    assert told(tmp_path, **numbers, min_p=0.1) == (GenerationOptions(), {})
    assert told(tmp_path, do_sample=True, **numbers) == (GenerationOptions(**numbers), {})
    assert told(tmp_path, do_sample=True)[0] == GenerationOptions(temperature=1.0, top_k=50)  # as theirs, unsaid
    assert told(tmp_path, num_beams=3)[0] == GenerationOptions(beam=3, stopping="heuristic")
    assert told(tmp_path, do_sample=True, num_beams=3)[1] == {"num_beams": 3}


@pytest.mark.parametrize(
    ("fields", "undone"),
    [
        (
            {"no_such_field": 3, "use_cache": True, "typical_p": 1.0, "encoder_repetition_penalty": 1.0},
            {"no_such_field": 3},
        ),
        ({"do_sample": True, "min_p": 0.1, "top_k": 7}, {"min_p": 0.1}),
        ({"bad_words_ids": [[3], [4, 5]]}, {"bad_words_ids": [[4, 5]]}),
        ({"num_beams": 4}, {}),
        ({"num_beams": 4, "early_stopping": "never", "diversity_penalty": 0.5}, {"diversity_penalty": 0.5}),
        ({"num_beams": 1, "early_stopping": True, "diversity_penalty": 0.5}, {}),
        ({"min_length": 9, "max_length": 20}, {"min_length": 9, "max_length": 20}),
        ({"forced_eos_token_id": 9}, {"forced_eos_token_id": 9}),
    ],
)
def test_what_is_not_done_is_named(fields: dict[str, Any], undone: dict[str, Any], tmp_path: Path) -> None:
    assert told(tmp_path, **fields)[1] == undone
    assert all(name in "".join(speaking.note(undone)) for name in undone) and bool(speaking.note(undone)) == bool(
        undone
    )


def test_an_older_folder_says_it_in_its_config(tmp_path: Path) -> None:
    says = {
        "model_type": "bart",
        "num_beams": 4,
        "early_stopping": "never",
        "max_length": 22,
        "min_length": 10,
        "dropout": 0.1,
    }
    (tmp_path / "config.json").write_text(json.dumps(says))
    options, undone = of_folder(tmp_path, replace(ALL["bart"], start=(2,)))
    assert options == GenerationOptions(beam=4, max_new=21, min_new=9, force_end=True) and undone == {}


@pytest.mark.parametrize(
    "fields",
    [
        {"num_beams": "x"},
        {"num_beams": 2, "early_stopping": "ever"},
        {"num_beams": -1},
        {"repetition_penalty": 0.0001 - 1},
        {"bad_words_ids": 3},
    ],
)
def test_nonsense_names_the_file(fields: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="generation_config.json"):
        told(tmp_path, **fields)


def test_a_run_speaks_as_its_recipe_says_and_for_the_rest_as_what_it_began_with(tmp_path: Path) -> None:
    recipe = copy_recipe(steps=2)
    run(replace(recipe, generation=GenerationOptions(beam=3, no_repeat=2)), tmp_path / "first")
    file = tmp_path / "first/model" / speaking.FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"encoder_no_repeat_ngram_size": 4}))
    again = GenerationOptions(length_penalty=2.0)
    run(replace(recipe, init=str(tmp_path / "first"), generation=again), tmp_path / "second")
    for folder in (tmp_path / "second", tmp_path / "second/model"):
        opened = pellucid.load(folder)
        found = (opened.options.beam, opened.options.no_repeat, opened.options.length_penalty)
        assert found == (3, 2, 2.0) and opened.undone == {"encoder_no_repeat_ngram_size": 4}
    assert json.loads((tmp_path / "second/model" / speaking.FILE).read_text())["num_beams"] == 3
