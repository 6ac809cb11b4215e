"""What all tests share: checked shapes, the folder of real data, few and steady examples."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import shapes
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# Before anything imports torch: processes that share a machine share its threads, too.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(share, 1)))

# Before anything imports qkv, or the modules already loaded would stay unchecked. The rooms with tensors: the grammar refuses
# wrong values by itself, in words, and is tested for just that.
rooms = "attention data decode interop look model store train".split()
install_import_hook([f"qkv.{room}" for room in rooms], "shapes.first_calls")

settings.register_profile(
    "qkv",
    deadline=None,  # the first call of a kernel is slow, and time is never asserted
    max_examples=20,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("qkv")


def pytest_runtest_setup() -> None:
    shapes.begin()


@pytest.fixture(autouse=True)
def same_machine() -> Iterator[None]:
    """The global switches that a command sets for its own process do not reach the next test."""
    threads = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else 0
    yield
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.set_flush_denormal(False)
        if threads:
            torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets, named by QKV_DATA; without it, the test is skipped."""
    named = os.environ.get("QKV_DATA")
    if not named:
        pytest.skip("needs real data: set QKV_DATA to the folder that holds the data sets")
    folder = Path(named)
    if not folder.is_dir():
        pytest.fail(f"QKV_DATA names {folder}, which is not a folder")
    return folder
