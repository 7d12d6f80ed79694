"""A recipe's fields as flags: `--training.steps 10` mirrors the TOML's path.

Names are checked here, values are read by tyro. Imports no torch.
"""

import inspect
import textwrap
from dataclasses import replace
from functools import reduce

from pellucid.data.config import absolute
from pellucid.errors import UserError, did_you_mean
from pellucid.models.hub import is_path
from pellucid.training.recipe import Recipe, describe, fields, list_recipes, load_recipe, recipe_path

EXAMPLES = {
    "pairs": "--data train.de train.en   (or one file of two columns: --data pairs.tsv)",
    "text": "--data mytext.txt",
    "labels": "--data reviews.csv   (columns text and label)",
    "tags": "--data train.conll   (a word and its tag a line)",
    "images": "--data photos   (a folder with a folder for each label)",
}


def recipe_from(argv: list[str], verb: str) -> tuple[Recipe, str]:
    """(the recipe with the flags applied, its name) of `RECIPE flags…`. Raises UserError; --help prints and exits."""
    if argv[0].startswith("-"):
        raise UserError(
            "the recipe comes first", f"pellucid {verb} RECIPE {' '.join(argv)}   recipes: {', '.join(list_recipes())}"
        )
    path = recipe_path(argv[0])
    return override(load_recipe(path), argv[1:], f"pellucid {verb} {argv[0]}"), path.stem


def override(recipe: Recipe, argv: list[str], prog: str) -> Recipe:
    """`recipe` with the flags of `argv` applied; a field is `--dotted.path value`. An unknown flag raises UserError."""
    words = [full_name(word) if word.startswith("--") else word for word in argv]
    check_names([word for word in words if word.startswith("--")])
    if "--help" in words or "-h" in words:
        print(every_field(recipe, prog))
        raise SystemExit(0)
    words = spell_booleans(words)
    if not words:
        return recipe
    import tyro

    return tyro.cli(Recipe, default=recipe, args=words, prog=prog)


def full_name(flag: str) -> str:
    """Short forms in full, underscores as dashes: --data -> --data.train, --stack.d_model -> --model.stack.d-model."""
    name, equals, value = flag.partition("=")
    name = name.replace("_", "-")
    if name == "--data":
        name = "--data.train"
    if name.startswith("--stack."):
        name = "--model." + name.removeprefix("--")
    return name + equals + value


def check_names(flags: list[str]) -> None:
    """Every flag is a field of the recipe, or UserError with the closest one: by its last part, else by the whole."""
    known = {"--help": ""}
    for path, kind in fields().items():
        name = "--" + path.replace("_", "-")
        known[name] = path
        if kind is bool:
            known[negated(name)] = path
    for flag in flags:
        name = flag.partition("=")[0]
        if name in known:
            continue
        leaf = name.lstrip("-").rpartition(".")[2]
        same = [one for one in known if one.lstrip("-").rpartition(".")[2] == leaf]
        guess = f"did you mean {' or '.join(same)}?" if same else did_you_mean(name, known)
        see_all = "`pellucid train RECIPE --help` lists every field"
        raise UserError(f"a recipe has no field {name}", guess if guess.startswith("did") else see_all)


def spell_booleans(words: list[str]) -> list[str]:
    """`--model.tied false`, as the file says it, becomes --model.no-tied; `… true` loses its word."""
    switches = {"--" + path.replace("_", "-") for path, kind in fields().items() if kind is bool}
    apart = [part for word in words for part in (word.split("=", 1) if word.partition("=")[0] in switches else [word])]
    spelled: list[str] = []
    for before, word in zip(["", *apart], apart, strict=False):
        if before in switches and word.lower() == "false":
            spelled[-1] = negated(before)
        elif not (before in switches and word.lower() == "true"):
            spelled.append(word)
    return spelled


def negated(flag: str) -> str:
    """--model.tied -> --model.no-tied."""
    table, dot, leaf = flag.rpartition(".")
    return f"{table}{dot}no-{leaf}"


def every_field(recipe: Recipe, prog: str) -> str:
    """What `pellucid train RECIPE --help` prints: each flag, the recipe's value, what it may be."""
    lines = [f"usage: {prog} [flags]", "", recipe.description, "", "every field, this recipe's value, what it may be:"]
    table = ""
    for path, kind in fields().items():
        before, _, name = path.rpartition(".")
        record = reduce(getattr, before.split(".") if before else [], recipe)
        if before != table:
            table, about = before, " ".join((inspect.getdoc(record) or "").split())
            lines += ["", *textwrap.wrap(f"{table}: {about}", 100)]
        value = getattr(record, name)
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)
        shown = shown if len(shown) < 18 else shown[:16] + "…"
        lines.append(f"  --{path.replace('_', '-'):34}{shown:18}{describe(kind)}")
    return "\n".join(lines)


def require_data(recipe: Recipe, name: str) -> None:
    """A recipe that reads files has some, or UserError with the flag and an example."""
    if recipe.data.kind in EXAMPLES and not recipe.data.train:
        raise UserError(
            f"the recipe {name} needs training data: --data is missing",
            f"example: pellucid train {name} {EXAMPLES[recipe.data.kind]}",
        )


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe with its data files as absolute paths, so that a run can be resumed from any folder."""
    d = recipe.data
    data = replace(d, train=absolute(d.train), valid=absolute(d.valid), test=absolute(d.test))
    begun = absolute((recipe.init,))[0] if is_path(recipe.init) else recipe.init
    return replace(recipe, data=data, init=recipe.init and begun)
