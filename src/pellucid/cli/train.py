"""`pellucid train RECIPE`: a recipe, what is overridden, a run. Imports no torch until it starts."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

from pellucid.cli.overrides import recipe_from, require_data, with_absolute_paths
from pellucid.errors import UserError
from pellucid.training.recipe import list_recipes

FLAGS = """\
common flags:
  --out DIR                   the run's folder (default: runs/RECIPE, then -2, -3, …)
  --data FILE [FILE …]        your training files or globs (short for --data.train)
  --data.valid FILE [FILE …]  files to evaluate on while training (default: a part of the training files)
  --seed N                    another seed, another run
  --training.steps N          how long
  --training.lr X             how fast
  --stack.d-model N           how wide; any other --stack.FIELD too (short for --model.stack.FIELD)
  --training.device NAME      cpu, cuda, mps (default: the best there is)

Every field of a recipe is a flag: `pellucid train RECIPE --help` lists them with that recipe's values.

examples:
  pellucid train dates
  pellucid train shakespeare --data input.txt --training.steps 500
  pellucid train multi30k --data train.de train.en --data.valid val.de val.en --out runs/de-en
  pellucid train my-recipe.toml --stack.d-model 256 --seed 2"""


def run(argv: list[str]) -> int:
    """Train; 0 when done, 75 when stopped but resumable."""
    if not argv or argv[0] in ("-h", "--help"):
        print(help_text())
        return 0 if argv else 2
    out, rest = take_out(argv)
    recipe, name = recipe_from(rest, "train")
    require_data(recipe, name)
    folder = choose_folder(name, out)

    from pellucid.training.run import start

    return finish(folder, lambda: start(with_absolute_paths(recipe), folder, name).kind)


def finish(folder: Path, work: Callable[[], str]) -> int:
    """The exit code of `work`, which tells how it ended. An interrupt or SIGTERM is a stop, once there is a run to resume."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # for the time before the loop has its own
    try:
        ended = work()
    except KeyboardInterrupt:
        if not (folder / "run.toml").is_file():
            raise
        ended = "stopped"
    finally:
        signal.signal(signal.SIGTERM, before)
    if ended != "stopped":
        return 0
    print(f"stopped; to go on: pellucid resume {folder}", file=sys.stderr)
    return 75


def help_text() -> str:
    """What `pellucid train --help` prints."""
    recipes = list_recipes()
    width = max(map(len, recipes), default=0) + 2
    lines = "\n".join(f"  {name:{width}}{line}" for name, line in recipes.items())
    return (
        "usage: pellucid train RECIPE [flags]\n\nTrain a model. RECIPE is one of these, or the path of a TOML file:\n"
        f"{lines}\n\n{FLAGS}"
    )


def take_out(argv: list[str]) -> tuple[str | None, list[str]]:
    """`--out DIR` (or --out=DIR) taken from the flags: it is of the run, not of the recipe."""
    for i, word in enumerate(argv):
        if word == "--out":
            if i + 1 == len(argv) or argv[i + 1].startswith("--"):
                raise UserError("--out needs a folder", "example: --out runs/my-run")
            return argv[i + 1], argv[:i] + argv[i + 2 :]
        if word.startswith("--out="):
            return word.removeprefix("--out="), argv[:i] + argv[i + 1 :]
    return None, argv


def choose_folder(name: str, out: str | None) -> Path:
    """`out`, which must be new or empty; else the first of runs/NAME, runs/NAME-2, … that is not there yet."""
    if out is not None:
        folder = Path(out)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            remedy = f"go on with it: pellucid resume {folder}; or choose another folder with --out"
            raise UserError(f"{folder} exists, and a run is never written over", remedy)
        return folder
    number = 1
    while (folder := Path("runs") / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return folder
