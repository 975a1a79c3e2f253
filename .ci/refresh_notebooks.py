"""Runs the notebooks and writes what they show into their files.

    python .ci/refresh_notebooks.py [--pictures] [FILE…]

Without a file: all of them. An output that is equal to the stored one, by the rules of
`notebooks/.nbval.cfg`, stays as it is, so that a second run changes nothing. A plot shows
what was measured, which never comes out the same: it is drawn anew with `--pictures` only.
A notebook in which a cell raises is left alone, unless the cell has the tag
`raises-exception`.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from nbformat import NotebookNode
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager
from nbval.plugin import get_sanitize_patterns

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
RULES = get_sanitize_patterns((NOTEBOOKS / ".nbval.cfg").read_text(encoding="utf-8"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
TIMEOUT = 60  # seconds a cell may take


def refresh(file: Path, pictures: bool) -> bool:
    """Run a notebook; true if its file changed."""
    before = file.read_text(encoding="utf-8")
    notebook = nbformat.reads(before, as_version=4)
    stored = {cell.id: cell.get("outputs", []) for cell in notebook.cells}
    execute(notebook, file.parent)
    for cell in notebook.cells:
        tidy(cell, stored[cell.id], pictures)
    name_cells(notebook, file.stem)
    notebook.metadata = nbformat.from_dict(METADATA)
    after = nbformat.writes(notebook) + "\n"
    if after != before:
        file.write_text(after, encoding="utf-8", newline="\n")
    return after != before


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run all cells in the Python that runs this script, as nbval does."""
    kernel = KernelManager(
        kernel_name=CURRENT_ENV_KERNEL_NAME, kernel_spec_manager=NbvalKernelspecManager()
    )
    client = NotebookClient(
        notebook,
        km=kernel,
        timeout=TIMEOUT,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        client.execute(stderr=subprocess.DEVNULL)
    finally:
        kernel.shutdown_kernel()


def tidy(cell: NotebookNode, stored: list[NotebookNode], pictures: bool) -> None:
    """Keep of a cell what a reader sees, and nothing that differs between two runs."""
    cell.metadata = nbformat.from_dict(
        {key: value for key, value in cell.metadata.items() if key == "tags"}
    )
    if cell.cell_type != "code":
        return
    for output in cell.outputs:
        if output.output_type == "error":
            # The frames name folders of this machine, and nbval does not compare them.
            output.traceback = [f"{output.ename}: {output.evalue}"]
    drawn = pictures and "image/png" in str(cell.outputs)
    if not drawn and sanitized(cell.outputs) == sanitized(stored):
        cell.outputs = stored


def sanitized(value: Any) -> Any:
    """Outputs as nbval compares them."""
    if isinstance(value, str):
        for pattern, replacement in RULES:
            value = re.sub(pattern, replacement, value)
        return value
    if isinstance(value, dict):
        return {key: sanitized(value[key]) for key in value if key != "image/png"}
    return [sanitized(part) for part in value] if isinstance(value, list) else value


def name_cells(notebook: NotebookNode, stem: str) -> None:
    """Give each cell that has none yet a name such as `echo-03`; names never change."""
    topic = re.sub(r"^\d+_|_server$", "", stem).replace("_", "-")
    known = re.compile(rf"{topic}-(\d\d)")
    names = [known.fullmatch(cell.id) for cell in notebook.cells]
    last = max((int(name[1]) for name in names if name), default=0)
    for cell, name in zip(notebook.cells, names, strict=True):
        if name is None:
            last += 1
            cell.id = f"{topic}-{last:02}"


def main(files: list[str]) -> int:
    """Refresh the files, say what happened to each, and fail if one of them failed."""
    pictures = "--pictures" in files
    named = [Path(file) for file in files if file != "--pictures"]
    failed = 0
    for file in named or sorted(NOTEBOOKS.glob("*.ipynb")):
        try:
            changed = refresh(file, pictures)
            print(f"{file.name}: {'changed' if changed else 'as it was'}", flush=True)
        except (CellControlSignal, DeadKernelError) as error:
            failed += 1
            print(f"{file.name}: left as it was, a cell failed\n{error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
