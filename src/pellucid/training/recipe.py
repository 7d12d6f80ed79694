"""A recipe: everything a run needs, one record, one TOML file.

Reading is strict: a misspelt field is an error, never ignored. Imports no torch.
"""

import dataclasses
import functools
import json
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pellucid.data.config import DataConfig
from pellucid.errors import UserError, did_you_mean
from pellucid.generation.options import GenerationOptions
from pellucid.models.config import ModelConfig
from pellucid.records import convert, hints
from pellucid.training.config import CardConfig, LoraConfig, TrainingConfig


@dataclass(frozen=True)
class Recipe:
    """What is asked (`task`), of which data, which model, how it learns and how it speaks. `init`: a run or model folder to begin with; its
    shape, tokenizer and weights are taken, and of `model` only the dropout counts.
    """

    description: str = ""
    task: Literal["translate", "instruct", "language-model", "masked-language-model", "classify", "tag"] = (
        "language-model"
    )
    init: str = ""
    seed: int = 0
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    lora: LoraConfig = LoraConfig()
    generation: GenerationOptions = GenerationOptions()
    card: CardConfig = CardConfig()


# --- finding recipes -------------------------------------------------------------------------------------------------


def recipes_folder() -> Path:
    """The folder of the recipes that come with Pellucid: inside an installed package, next to `src` in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent.parent / "recipes"


def list_recipes() -> dict[str, str]:
    """Name -> one-line description of every recipe that comes with Pellucid, in the order of their names."""
    found = {}
    for path in sorted(recipes_folder().glob("*.toml")):
        found[path.stem] = str(_parse(path).get("description", ""))
    return found


def recipe_path(name_or_path: str | Path) -> Path:
    """The TOML file that is meant: a name from `list_recipes`, else a path. Raises UserError with the closest name."""
    own = recipes_folder() / f"{name_or_path}.toml"
    if re.fullmatch(r"[\w-]+", str(name_or_path)) and own.is_file():
        return own
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.suffix == ".toml" or path.is_dir() or len(path.parts) > 1:
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"recipe {path} {what}", "give a TOML file, or one of: " + ", ".join(list_recipes()))
    raise UserError(f"there is no recipe {str(name_or_path)!r}", did_you_mean(str(name_or_path), list_recipes()))


# --- reading ---------------------------------------------------------------------------------------------------------


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe by name or path; what the file does not say keeps its default.

    Raises UserError naming file, line and field: an unknown field, a value of the wrong type, a file that is no TOML.
    """
    path = recipe_path(name_or_path)
    return _Reader(path).record(Recipe, _parse(path), ())


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(
            f"{path}: this is not TOML: {error}", "strings need quotes; a table starts with [name]"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text", "a recipe is a TOML file") from None


class _Reader:
    """Turns TOML tables into frozen records and says where (file, line, field) something does not fit."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self, kind: type, table: Mapping[str, Any], at: tuple[str, ...]) -> Any:
        """`kind` from `table`, found at the dotted path `at`."""
        known = hints(kind)
        for key in table:
            if key not in known:
                raise self.error(f"unknown field {'.'.join((*at, key))!r}", suggest_field((*at, key)), (*at, key))
        values = {key: self.value(known[key], value, (*at, key)) for key, value in table.items()}
        try:
            return kind(**values)
        except UserError as error:  # a record's own checks
            raise UserError(f"{self.path}: {error.problem}", error.remedy) from None

    def value(self, hint: Any, value: Any, at: tuple[str, ...]) -> Any:
        """`value` as `hint` wants it (an integer may stand for a float, a list for a tuple); otherwise UserError."""
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            if not isinstance(value, dict):
                raise self.wrong(hint, value, at)
            return self.record(hint, value, at)
        fits, converted = convert(hint, value)
        if not fits:
            raise self.wrong(hint, value, at)
        return converted

    def wrong(self, hint: Any, value: Any, at: tuple[str, ...]) -> UserError:
        """The error for a value of the wrong type."""
        field = ".".join(at)
        if typing.get_origin(hint) is Literal and isinstance(value, str):
            return self.error(f"{field} cannot be {value!r}", did_you_mean(value, typing.get_args(hint)), at)
        problem = f"{field} must be {describe(hint)}, not {_toml(value)} ({_kind(value)})"
        if hint == tuple[str, ...] and isinstance(value, str):
            return self.error(problem, f"write {at[-1]} = [{_toml(value)}]", at)
        return self.error(problem, "", at)

    def error(self, problem: str, remedy: str, at: tuple[str, ...]) -> UserError:
        """UserError with the file and, where it can be found, the line."""
        line = _line_of(self.path.read_text(encoding="utf-8-sig"), at)
        return UserError(f"{self.path}{f', line {line}' if line else ''}: {problem}", remedy)


def _line_of(text: str, at: tuple[str, ...]) -> int | None:
    """The line (from 1) on which the field `at` is set or the table `at` begins."""
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[([^\[\]]+)\]", line)
        entry = re.match(r"\s*([\w.\"-]+)\s*=", line)
        if header:
            table = _path(header[1])
        if (header and table[: len(at)] == at) or (entry and (*table, *_path(entry[1]))[: len(at)] == at):
            return number
    return None


def _path(key: str) -> tuple[str, ...]:
    return tuple(part.strip().strip('"') for part in key.split("."))


# --- fields ----------------------------------------------------------------------------------------------------------


@functools.cache
def fields(kind: type = Recipe) -> dict[str, Any]:
    """Dotted path -> type of every value in a recipe, in the order they are written: `training.steps` -> int."""
    found: dict[str, Any] = {}
    for name, hint in sorted(hints(kind).items(), key=lambda item: dataclasses.is_dataclass(item[1])):
        inside = fields(typing.cast(type, hint)) if dataclasses.is_dataclass(hint) else {"": hint}
        found |= {f"{name}.{inner}".rstrip("."): type_ for inner, type_ in inside.items()}
    return found


def suggest_field(at: tuple[str, ...]) -> str:
    """A remedy for an unknown field: the same name in another table, or the closest one in this table or anywhere."""
    elsewhere = [path for path in fields() if path.split(".")[-1] == at[-1]]
    if elsewhere:
        return "did you mean " + " or ".join(repr(path) for path in elsewhere) + "?"
    here = ".".join(at[:-1]) + "."
    remedy = did_you_mean(at[-1], {path.removeprefix(here).split(".")[0] for path in fields() if path.startswith(here)})
    if remedy.startswith("did you mean"):
        return remedy.replace("did you mean '", f"did you mean '{here}")
    return did_you_mean(".".join(at), fields()) if at[:-1] else did_you_mean(at[-1], hints(Recipe))


def describe(hint: Any) -> str:
    """A type in plain words: 'a whole number', 'one of pre, post'."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, parts))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(part) for part in parts if part is not type(None))
    if origin is tuple:
        return (
            f"a list of {'strings' if parts[0] is str else 'numbers' if Ellipsis in parts else f'{len(parts)} numbers'}"
        )
    if origin is dict or dataclasses.is_dataclass(hint):
        return "a table"
    return {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}[hint]


def _kind(value: Any) -> str:
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "a table",
    }
    return names.get(type(value), type(value).__name__)


# --- writing ---------------------------------------------------------------------------------------------------------


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML, every field written out, so that later changes of defaults do not reach an old run.

    A field that is None (TOML has no such value) is left out; `load_recipe` of the text gives an equal recipe.
    """
    return "\n".join(_table(recipe, ())).lstrip("\n") + "\n"


def dump(recipe: Recipe, path: Path) -> None:
    """Write `to_toml(recipe)` to `path`."""
    path.write_text(to_toml(recipe), encoding="utf-8", newline="\n")


def _table(record: Any, at: tuple[str, ...]) -> list[str]:
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    inner = {name: value for name, value in values.items() if dataclasses.is_dataclass(value)}
    lines = ["", f"[{'.'.join(at)}]"] if at else []
    lines += [f"{name} = {_toml(value)}" for name, value in values.items() if value is not None and name not in inner]
    for name, value in inner.items():
        lines += _table(value, (*at, name))
    return lines


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):  # TOML's escapes are JSON's, but for DEL, which JSON lets through
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    return repr(value) if isinstance(value, int | float) else str(value)
