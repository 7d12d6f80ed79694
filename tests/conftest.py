"""What all tests share: shapes on signatures are checked by machine, caches are private, corpora are found or the test is skipped."""

import os
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

os.environ["OMP_NUM_THREADS"] = "1"  # the models are tiny: more threads would only wait for one another
torch.set_num_threads(1)
os.environ["HF_HUB_OFFLINE"] = "1"  # no test leaves this machine
os.environ["PELLUCID_CACHE"] = tempfile.mkdtemp(prefix="pellucid-cache-")
_hook = install_import_hook(["pellucid.parts", "pellucid.models"], "beartype.beartype")

settings.register_profile("pellucid", deadline=None, max_examples=15, derandomize=True)
settings.load_profile("pellucid")


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of real corpora and weights."""
    folder = os.environ.get("PELLUCID_DATA")
    if not folder:
        pytest.skip("set PELLUCID_DATA to the folder of corpora")
    return Path(folder).resolve()
