"""Recipes: reading is strict and says where; writing and reading again gives the same; the shipped ones are sound."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data.config import DataConfig
from pellucid.errors import UserError
from pellucid.models.config import ModelConfig
from pellucid.parts.config import Norm, StackConfig
from pellucid.training.config import TrainingConfig
from pellucid.training.recipe import Recipe, dump, fields, list_recipes, load_recipe, recipes_folder, to_toml
from pellucid.training.run import check

QUIET = TrainingConfig()
ASKED = ("labels", "sst2", "mlm", "images", "mnist", "instruct", "pydocs", "reverse", "tags")


def read(tmp_path: Path, text: str) -> Recipe:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path)


def test_what_is_not_said_keeps_its_default(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Recipe()
    assert read(tmp_path, "[model.stack]\nd_model = 8").model.stack == StackConfig(d_model=8)


def test_numbers_lists_and_tables_become_what_the_record_wants(tmp_path: Path) -> None:
    recipe = read(
        tmp_path,
        'seed = 3\n[data]\ntrain = ["a", "b"]\n[training]\nlr = 1\nbetas = [0, 0.5]\n'
        '[model]\nrope_scaling = {type = "linear", factor = 2}',
    )
    assert recipe.data.train == ("a", "b") and recipe.training.betas == (0.0, 0.5)
    assert isinstance(recipe.training.lr, float) and recipe.model.rope_scaling == {"type": "linear", "factor": 2.0}


@pytest.mark.parametrize(
    "text, says",
    [
        ("[training]\nstpes = 3", ["mine.toml, line 2", "'training.stpes'", "did you mean 'training.steps'?"]),
        ("\n[model]\nd_model = 3", ["line 3", "'model.d_model'", "did you mean 'model.stack.d_model'?"]),
        ("[trainnig]\nsteps = 3", ["line 1", "'trainnig'", "did you mean 'training'?"]),
        ("[model.stack.norm]\nkidn = 'rms'", ["line 2", "did you mean 'model.stack.norm.kind'?"]),
        ("[training]\nlr = 1e-3\nsteps = 1.5", ["line 3", "training.steps must be a whole number, not 1.5"]),
        ("seed = true", ["line 1", "seed must be a whole number, not true"]),
        ("[training]\nlr = 'fast'", ['training.lr must be a number, not "fast" (a string)']),
        ("[model]\ntied = 1", ["model.tied must be true or false, not 1"]),
        ("[model.stack]\nresidual = 'pots'", ["model.stack.residual cannot be 'pots'", "did you mean 'post'?"]),
        ("[data]\ntrain = 'a.txt'", ["a list of strings", 'write train = ["a.txt"]']),
        ("[data]\ntrain = [1]", ["a list of strings"]),
        ("[training]\nbetas = [0.9]", ["a list of 2 numbers"]),
        ("training = 3", ["training must be a table"]),
        ("[model]\nrope_scaling = {factor = [1]}", ["model.rope_scaling must be a table"]),
        ("[model]\npad_id = 'x'", ["model.pad_id must be a whole number"]),
        ("[training]\nsteps = 0", ["training.steps is 0", "at least 1"]),
        ("seed = \n", ["not TOML", "line 1"]),
    ],
)
def test_errors_name_file_line_field_and_remedy(tmp_path: Path, text: str, says: list[str]) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path, text)
    assert error.value.exit_code == 2
    for part in ["mine.toml", *says]:
        assert part in str(error.value)


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'dates'"):
        load_recipe("daets")
    with pytest.raises(UserError, match="does not exist"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(UserError, match="is a folder"):
        load_recipe(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        load_recipe(tmp_path / "binary.toml")


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "bom.toml").write_bytes(b"\xef\xbb\xbfseed = 4")
    assert load_recipe(tmp_path / "bom.toml").seed == 4


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
    st.floats(1e-12, 1e12),
    st.integers(-(2**63), 2**63 - 1),
    st.none()
    | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), st.floats(allow_nan=False) | st.just("x"), max_size=2
    ),
)
def test_written_and_read_again_is_the_same(tmp_path_factory, text, files, number, whole, scaling) -> None:  # type: ignore[no-untyped-def]
    recipe = Recipe(
        description=text,
        seed=whole,
        data=DataConfig(train=tuple(files)),
        model=ModelConfig(stack=StackConfig(n_kv_heads=2, norm=Norm(eps=number)), tied=False, rope_scaling=scaling),
    )
    path = tmp_path_factory.mktemp("toml") / "run.toml"
    dump(recipe, path)
    assert load_recipe(path) == recipe


def test_every_field_is_written_but_those_without_a_value() -> None:
    text = to_toml(Recipe())
    ids = ("pad_id", "bos_id", "eos_id", "suppress")
    assert [path for path in fields() if f"{path.split('.')[-1]} = " not in text] == [
        *(f"model.{name}" for name in ("window", "rope_scaling", *ids, "decoder_layers", "decoder_vocab_size")),
        "model.stack.n_kv_heads",
        "model.heads.width",
    ]


@pytest.mark.parametrize("name", list_recipes())
def test_shipped_recipes_are_sound(name: str) -> None:
    recipe = load_recipe(name)
    stack = recipe.model.stack
    assert 10 < len(recipe.description) < 120
    assert stack.d_model % stack.n_heads == 0 and stack.n_heads % (stack.n_kv_heads or stack.n_heads) == 0
    check(recipe if recipe.training.metric not in ("bleu", "chrf") else dataclasses.replace(recipe, training=QUIET))
    assert recipe.data.kind != "text" or recipe.training.length <= recipe.model.max_length
    assert recipe.training.warmup < recipe.training.steps
    lines = (recipes_folder() / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ") and len(lines) < 80, "a recipe is one commented page"


def test_the_recipes_that_are_promised_are_there() -> None:
    assert {"dates", "copy", "multi30k", "pairs", "shakespeare", "text"} | set(ASKED) <= set(list_recipes())


def test_fields_are_dotted_paths() -> None:
    assert fields()["model.stack.dropout.residual"] is float and fields()["seed"] is int
    assert len(fields()) > 60 and not any(dataclasses.is_dataclass(kind) for kind in fields().values())
