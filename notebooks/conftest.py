"""How nbval compares the notebooks: in this environment, with our rules, in good time.

`--nbval` itself stands in `.pytest.toml`. These options stand here because a path there
would be relative to wherever pytest was started.
"""

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from jupyter_client.manager import KernelManager
from nbval import kernel
from nbval.kernel import RunningKernel
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from exercises.grader.redis_beside import short_folder


def pytest_configure(config: pytest.Config) -> None:
    config.option.nbval_sanitize_with = str(Path(__file__).with_name(".nbval.cfg"))
    # Whatever kernel a notebook names, it is the Python that runs pytest that counts.
    config.option.nbval_current_env = True
    config.option.nbval_cell_timeout = 60  # seconds; a cell takes less than two
    RunningKernel.stop = stop
    if os.name == "posix":
        kernel.KernelManager = over_sockets


class Sharing(LoadScopeScheduling):
    """Gives each process a test at a time, and all cells of a notebook to one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file.endswith(".ipynb") else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Sharing:
    return Sharing(config, log)


def over_sockets(**options: Any) -> KernelManager:
    """A kernel that listens on Unix sockets.

    Ports are chosen before a kernel takes them, and meanwhile somebody else may do so.
    """
    file = Path(short_folder()) / f"kernel-{uuid4().hex[:8]}.json"
    return KernelManager(transport="ipc", connection_file=str(file), **options)


def stop(running: RunningKernel) -> None:
    """Let a kernel leave by itself: nbval would kill it, and its folders would remain."""
    running.kc.stop_channels()
    running.km.shutdown_kernel()
    del running.km
