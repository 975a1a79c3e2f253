"""How nbval compares the notebooks: in this environment, with our rules, in good time.

`--nbval` itself stands in `.pytest.toml`. These options stand here because a path there
would be relative to wherever pytest was started.
"""

from pathlib import Path

import pytest
from nbval.kernel import RunningKernel


def pytest_configure(config: pytest.Config) -> None:
    config.option.nbval_sanitize_with = str(Path(__file__).with_name(".nbval.cfg"))
    # Whatever kernel a notebook names, it is the Python that runs pytest that counts.
    config.option.nbval_current_env = True
    config.option.nbval_cell_timeout = 60  # seconds; a cell takes less than two
    RunningKernel.stop = stop


def stop(kernel: RunningKernel) -> None:
    """Let a kernel leave by itself: nbval would kill it, and its folders would remain."""
    kernel.kc.stop_channels()
    kernel.km.shutdown_kernel()
    del kernel.km


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run side by side, the cells of one notebook stay together, in order."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
