"""`pellucid resume RUN`: go on exactly where a run stopped. Imports no torch until it starts."""

from pathlib import Path

from pellucid.cli.arguments import Parser
from pellucid.cli.train import finish
from pellucid.errors import DataError


def run(argv: list[str]) -> int:
    """Resume; 0 when done, 75 when stopped again."""
    parser = Parser("resume", "Go on with a stopped run, exactly where it stopped.", "  pellucid resume runs/dates")
    parser.add_argument("run", metavar="RUN", help="the folder of the run, e.g. runs/dates")
    folder = Path(parser.parse(argv).run)
    if not (folder / "run.toml").is_file():
        what = "has no run.toml: it is not the folder of a run" if folder.is_dir() else "does not exist"
        raise DataError(f"{folder} {what}", others(folder.parent))

    from pellucid.training.run import resume

    return finish(folder, lambda: resume(folder).kind)


def others(parent: Path) -> str:
    """A remedy: the runs next to the one that was asked for."""
    runs = sorted(path.parent for path in parent.glob("*/run.toml")) or sorted(
        p.parent for p in Path("runs").glob("*/run.toml")
    )
    return "runs here: " + ", ".join(map(str, runs)) if runs else "start one: pellucid train RECIPE"
