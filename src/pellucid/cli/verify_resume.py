"""`pellucid verify-resume RECIPE`: trains a little, twice, once with a stop in between, and compares every bit."""

import tempfile
from pathlib import Path

from pellucid.cli.overrides import recipe_from, require_data, with_absolute_paths
from pellucid.errors import UserError

HELP = """\
usage: pellucid verify-resume RECIPE [--steps N] [any flag of `pellucid train RECIPE`]

Prove on this machine that resuming is exact: the recipe is trained for N steps without a stop, and a
second time in processes that are killed on the way; weights, optimiser state and metrics must be equal bit for bit.
Exits 0 only when they are.

  --steps N     how many steps (default 20)

example:
  pellucid verify-resume dates --steps 50"""


def run(argv: list[str]) -> int:
    """Verify; 0 when equal, 1 when not."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0 if argv else 2
    steps, rest = take_steps(argv)
    recipe, name = recipe_from(rest, "verify-resume")
    require_data(recipe, name)

    from pellucid.training.verify import verify_resume

    with tempfile.TemporaryDirectory(prefix="pellucid-verify-") as workdir:
        report = verify_resume(with_absolute_paths(recipe), Path(workdir), steps)
    print("\n".join(report.lines))
    print("equal: resuming is exact here" if report.equal else "NOT EQUAL: resuming is not exact here")
    return 0 if report.equal else 1


def take_steps(argv: list[str]) -> tuple[int, list[str]]:
    """`--steps N` taken from the flags: how long to compare, not a field of the recipe."""
    apart = [part for word in argv for part in (word.split("=", 1) if word.startswith("--steps=") else [word])]
    if "--steps" not in apart:
        return 20, apart
    i = apart.index("--steps")
    value = apart[i + 1] if i + 1 < len(apart) else ""
    if not value.isdigit() or int(value) < 2:
        raise UserError(f"--steps must be a whole number, 2 or more, not {value!r}", "example: --steps 50")
    return int(value), apart[:i] + apart[i + 2 :]
