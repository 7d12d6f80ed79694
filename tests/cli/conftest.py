"""What the tests of the command line share."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Completed = subprocess.CompletedProcess[str]
Shell = Callable[..., Completed]


def make_shell(folder: Path) -> Shell:
    """`shell("train", "dates", stdin="…")`: pellucid as a user types it, in `folder`. No traceback ever comes out."""

    def run(*words: str, stdin: str | bytes = "", timeout: float = 300, **environment: str) -> Completed:
        ran = subprocess.run(
            [sys.executable, "-m", "pellucid.cli.main", *words],
            input=stdin if isinstance(stdin, bytes) else stdin.encode(),
            capture_output=True,
            cwd=folder,
            timeout=timeout,
            env={**os.environ, "PELLUCID_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", **environment},
        )
        out, err = ran.stdout.decode("utf-8"), ran.stderr.decode("utf-8")
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(ran.args, ran.returncode, out.replace("\r\n", "\n"), err)

    return run


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A command line in an empty folder."""
    return make_shell(tmp_path)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shell, Path]:
    """A command line in a folder that a module's tests share, and the folder."""
    folder = tmp_path_factory.mktemp("workshop")
    return make_shell(folder), folder
