"""The plan of the house, held by machine: who imports whom, how long things may grow, where torch is, no pickle."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from pellucid.parts.config import StackConfig

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "pellucid"
FILES = sorted(PACKAGE.rglob("*.py"))
RANKS = {
    **dict.fromkeys(("errors", "progress", "records", "room", "parts", "text"), 0),
    **dict.fromkeys(("models", "data"), 1),
    "generation": 2,
    "tasks": 3,
    "training": 4,
    **dict.fromkeys(("inspection", "distillation", "export", "serving"), 5),
    "api": 6,
    "cli": 7,
    "__main__": 8,
    "__init__": 8,  # `pellucid.load`, imported when asked for
}
FREE = {"errors", "progress", "records", "room", "__version__"}  # anyone may import these
PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
GUARDED = PACKAGE / "models" / "pickled.py"  # the one place that reads a pickle, with weights_only=True
Function = ast.FunctionDef | ast.AsyncFunctionDef

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a file imports, wherever the import stands; relative imports in full."""
    package = ("pellucid", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            yield from ((node.lineno, f"{base}.{name.name}") for name in node.names)


def folder(path: Path) -> str:
    """The folder (or single module) of the plan that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def wrong_imports(path: Path, tree: ast.Module) -> list[str]:
    """Imports of a folder that is not of lower rank."""
    own, wrong = folder(path), []
    for line, name in imports(path, tree):
        parts = name.split(".")
        if parts[0] == "pellucid" and len(parts) > 1 and parts[1] not in FREE | {own}:
            if RANKS[parts[1]] >= RANKS[own]:
                wrong.append(f"line {line}: {own} (rank {RANKS[own]}) imports {name} (rank {RANKS[parts[1]]})")
    return wrong


def functions(tree: ast.AST) -> list[Function]:
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def body_lines(function: Function) -> int:
    """Lines of a function, its docstring not counted."""
    first = function.body[0]
    said = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    docstring = (first.end_lineno or 0) - first.lineno + 1 if said else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def n_parameters(function: Function) -> int:
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return sum(one.arg not in ("self", "cls") for one in named) + (given.vararg is not None) + (given.kwarg is not None)


def branches(function: Function) -> int:
    kinds = (ast.If, ast.IfExp, ast.While, ast.Try, ast.match_case)
    return sum(isinstance(node, kinds) for node in ast.walk(function))


def forward_of(module: str, name: str) -> Function:
    tree = parse(PACKAGE / module)
    kind = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return next(node for node in kind.body if isinstance(node, ast.FunctionDef) and node.name == "forward")


@each_file
def test_a_folder_imports_only_lower_ranks(path: Path) -> None:
    assert wrong_imports(path, parse(path)) == []


@pytest.mark.parametrize(
    "place, code",
    [
        ("models/gpt.py", "from pellucid.data.text import TextData"),
        ("data/text.py", "import pellucid.models.gpt"),
        ("text/bpe.py", "def f():\n    from pellucid.parts import masks"),
        ("parts/stack.py", "from ..models import gpt"),
        ("parts/masks.py", "if TYPE_CHECKING:\n    from pellucid import training"),
        ("training/loop.py", "from pellucid import api"),
        ("training/loop.py", "from pellucid.cli.main import main"),
    ],
)
def test_the_rank_test_sees_wrong_imports(place: str, code: str) -> None:
    assert len(wrong_imports(PACKAGE / place, ast.parse(code))) == 1


@pytest.mark.parametrize(
    "place, code",
    [
        (
            "models/gpt.py",
            "from pellucid.parts.stack import Stack\nfrom pellucid.errors import X\nfrom . import bert",
        ),
        ("parts/masks.py", "from pellucid.parts.shapes import States\nimport torch"),
        ("cli/main.py", "from pellucid import __version__, api"),
    ],
)
def test_the_rank_test_lets_right_imports_pass(place: str, code: str) -> None:
    assert wrong_imports(PACKAGE / place, ast.parse(code)) == []


@each_file
def test_every_file_is_in_the_plan(path: Path) -> None:
    assert folder(path) in RANKS


@each_file
def test_nothing_grows_too_long_or_too_wide(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    too_much = [f"{len(source.splitlines())} lines"] if len(source.splitlines()) > 300 else []
    for function in functions(ast.parse(source)):
        lines = (function.end_lineno or 0) - function.lineno + 1
        if lines > 60:
            too_much.append(f"{function.name}: {lines} lines")
        if n_parameters(function) > 8:
            too_much.append(f"{function.name}: {n_parameters(function)} parameters")
    assert too_much == []


@each_file
def test_packages_are_only_a_docstring_so_that_torch_comes_late(path: Path) -> None:
    if path.name == "__init__.py" and path.parent != PACKAGE:
        body = parse(path).body
        assert len(body) == 1 and isinstance(body[0], ast.Expr)


@each_file
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(parse(path))


def test_the_loop_is_short() -> None:
    loop = PACKAGE / "training" / "loop.py"
    if not loop.exists():
        pytest.skip("there is no loop yet")
    assert len(loop.read_text(encoding="utf-8").splitlines()) <= 200


def test_the_stack_has_at_most_ten_fields() -> None:
    assert len(fields(StackConfig)) <= 10


def test_attention_forward_is_short_and_hardly_asks() -> None:
    forward = forward_of("parts/attention.py", "Attention")
    assert body_lines(forward) <= 30 and branches(forward) <= 3


@pytest.mark.parametrize("block", ["Block", "CrossBlock"])
def test_block_forward_does_not_ask(block: str) -> None:
    assert branches(forward_of("parts/stack.py", block)) <= 1


@each_file
def test_nothing_is_pickled(path: Path) -> None:
    assert pickles(path, parse(path)) == []


def pickles(path: Path, tree: ast.Module) -> list[str]:
    """What a file does that reads or writes pickle. One module may call `torch.load`, and only with weights_only=True."""
    found = [f"line {line}: imports {name}" for line, name in imports(path, tree) if name.split(".")[0] in PICKLERS]
    found += [f"line {line}: {name}" for line, name in imports(path, tree) if name in ("torch.load", "torch.save")]
    guarded = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call) and says(node, "weights_only", True)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            allowed = node.attr == "load" and path == GUARDED and node in guarded
            if node.attr in ("load", "save") and not allowed:
                found.append(f"line {node.lineno}: torch.{node.attr}")
        if isinstance(node, ast.Call) and any(given.arg == "allow_pickle" for given in node.keywords):
            if not says(node, "allow_pickle", False):
                found.append(f"line {node.lineno}: allow_pickle")
    return found


def says(call: ast.Call, name: str, value: bool) -> bool:
    """Whether a call gives this argument this very constant."""
    return any(
        given.arg == name and isinstance(given.value, ast.Constant) and given.value.value is value
        for given in call.keywords
    )


@pytest.mark.parametrize(
    "place, code",
    [
        ("models/pickled.py", "torch.load(path)"),
        ("models/pickled.py", "torch.load(path, weights_only=False)"),
        ("models/pickled.py", "torch.load(path, weights_only=careful)"),
        ("models/pickled.py", "read = torch.load"),
        ("models/pickled.py", "from torch import load"),
        ("models/pickled.py", "torch.save(model, path)"),
        ("models/weights.py", "torch.load(path, weights_only=True)"),
        ("data/images.py", "numpy.load(path, allow_pickle=True)"),
        ("data/images.py", "import pickle"),
    ],
)
def test_the_pickle_test_sees_what_is_not_allowed(place: str, code: str) -> None:
    assert len(pickles(PACKAGE / place, ast.parse(code))) == 1


def test_the_one_guarded_import_is_there() -> None:
    assert any(isinstance(node, ast.Call) and says(node, "weights_only", True) for node in ast.walk(parse(GUARDED)))


# --- torch comes late ------------------------------------------------------------------------------------------------


def without_torch() -> list[str]:
    """Modules that must not import torch: all of text and cli, the configs, and those whose docstring says so."""
    found = []
    for path in FILES:
        says_so = re.search(r"[Ii]mports no torch", ast.get_docstring(parse(path)) or "")
        if (
            says_so
            or folder(path) in ("text", "cli", "errors", "records")
            or path.name in ("config.py", "options.py", "__init__.py")
        ):
            found.append(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"))
    return found


def in_a_fresh_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", timeout=60)


def test_light_modules_import_no_torch() -> None:
    names = without_torch()
    assert {"pellucid", "pellucid.cli.main", "pellucid.training.recipe", "pellucid.models.config"} <= set(names)
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name\n"
    )
    ran = in_a_fresh_python(code)
    assert ran.returncode == 0, ran.stderr


def test_help_of_every_verb_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from pellucid.cli.main import VERBS, main\n"
        "for words in [], *([verb] for verb in VERBS), ['train', 'dates']:\n"
        "    assert main([*words, '--help']) == 0, words\n"
        "    heavy = {'torch', 'numpy', 'transformers', 'rich'} & set(sys.modules)\n"
        "    assert not heavy, (words, heavy)\n"
    )
    ran = in_a_fresh_python(code)
    assert ran.returncode == 0, ran.stderr
