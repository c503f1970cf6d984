"""What several tests share: one thread, no deadlines, one Fabric, one small world."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

if sys.dont_write_bytecode:
    # without compiled modules, every process of a test would compile all of torch again
    compiled = Path(__file__).parent.parent / ".pytest_cache" / "compiled"
    sys.pycache_prefix, sys.dont_write_bytecode = str(compiled), False
    os.environ["PYTHONPYCACHEPREFIX"] = str(compiled)
    del os.environ["PYTHONDONTWRITEBYTECODE"]


def pytest_configure():
    """One thread: sums in one order, and room for other test runs beside this one."""
    import torch

    torch.set_num_threads(1)


# a busy machine is no failure, and a failure comes again on the next run
settings.register_profile("s2kd", deadline=None, derandomize=True)
settings.load_profile("s2kd")


@pytest.fixture(scope="session")
def fabric():
    from lightning_fabric import Fabric

    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture(scope="session")
def blobs():
    """Five runs of 16 frames of one channel on a wrapping 8×8 grid: three, one and one."""
    from worlds import world

    return world("blobs", size=8, runs=5, length=16)


@pytest.fixture(scope="session")
def done():
    """The finished run of the tests of the road: to be read only."""
    import road

    return road.finished()


@pytest.fixture
def mine(done, tmp_path):
    """A copy of it, to be changed."""
    import road

    return road.copy_of(done, tmp_path / "run")
