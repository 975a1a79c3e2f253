"""What a class gets: the course without the teacher's part, and a bundle for Gradescope."""

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from .course import EXERCISES, ROOT, exercises

# Below the top, only these are released, and of them not what the machine or the teacher
# left there.
FOLDERS = ["examples", "notebooks", "exercises", ".github/pictures"]
LEFT_OUT = re.compile(
    r"(^|/)(__pycache__|\.ipynb_checkpoints|\.\w+_cache|\.hypothesis|\.venv|\.DS_Store)(/|$)"
    r"|^exercises/instructor/|(^|/)\.progress\.\w+$|\.backup\.py$"
    r"|\.(pyc|db|db-journal|db-wal|db-shm)$|(^|/)grades\.\w+$"
)
TEACHERS = re.compile(r"^## For teachers\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
# A paragraph and the commands below it, if they run the tests that a class does not get.
TESTS = re.compile(r"^(?:[^\n]+\n)+\n```\n[^`]*\bpytest\n```\n\n", re.MULTILINE)

HANDING_IN = """\
## Handing in

Push your work to GitHub: the workflow `check` there checks every exercise and shows your
points in the summary of its run. Or hand in a zip of the folder `exercises`. Of all that
you hand in, only the files `exercise.py` are read.

"""

WORKFLOW = """\
# Checks every exercise at each push and shows the points in the summary of the run.
name: check
on: [push, workflow_dispatch]
permissions:
  contents: read
jobs:
  check:
    runs-on: ubuntu-latest
    timeout-minutes: 30
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.13"
          cache: pip
      - run: python -m pip install -q -r requirements.txt
      - run: python -m exercises check --all --json > results.json
      - name: Show the points
        if: always()
        shell: python
        run: |
          import json, os, pathlib

          text = pathlib.Path("results.json").read_text(encoding="utf-8")
          points, lines = {}, ["| exercise | points | of |", "|---|---|---|"]
          for result in json.loads(text or '{"results": []}')["results"]:
              earned, of = points.get(result["stem"], (0, 0))
              points[result["stem"]] = (earned + result["earned"], of + result["points"])
          lines += [f"| {stem} | {got} | {of} |" for stem, (got, of) in points.items()]
          if not points:
              lines = ["No results: this is a fault of the grader, not of your work."]
          with open(os.environ["GITHUB_STEP_SUMMARY"], "a", encoding="utf-8") as summary:
              print(*lines, sep="\\n", file=summary)
"""

SETUP = """\
#!/usr/bin/env bash
# Gradescope runs this once, as root, when it builds the container.
set -euo pipefail
root=${AUTOGRADER_ROOT:-/autograder}
apt-get update -q
for python in python3.14 python3.13 python3.12 python3.11; do
  if apt-get install -y -q "$python" "$python-venv"; then break; fi
done
"$python" -m venv "$root/venv"
"$root/venv/bin/pip" install -q -r "$root/source/requirements.txt"
"""

RUN = """\
#!/usr/bin/env bash
# Gradescope runs this for each submission. It leaves results.json, whatever happens.
root=${AUTOGRADER_ROOT:-/autograder}
python=${AUTOGRADER_PYTHON:-$root/venv/bin/python}
class=$(mktemp -d)
mkdir -p "$root/results"
cat > "$root/results/results.json" <<'END'
@BROKEN@
END
# `grade` takes a folder with a submission for each student; here there is one student.
ln -s "$root/submission" "$class/student"
cd "$root/source" || exit
"$python" -m exercises grade "$class" -j 1 @ONLY@--gradescope "$class/results"
# In one step, so that there is always a whole file.
if cp "$class/results/student.json" "$root/results/results.new"; then
  mv "$root/results/results.new" "$root/results/results.json"
fi
rm -rf "$class"
"""

BROKEN = {
    "score": 0,
    "output": "The grader failed, so this is no verdict on your work and costs nothing. "
    "Please tell your teacher, who can have it graded again.",
    "output_format": "text",
    "visibility": "visible",
    "stdout_visibility": "hidden",
}


def released() -> dict[str, bytes]:
    """Every file that a class gets, by its path."""
    files = {
        file.relative_to(ROOT).as_posix(): file
        for folder in FOLDERS
        for file in sorted((ROOT / folder).rglob("*"))
        if file.is_file()
    }
    texts = {path: f.read_bytes() for path, f in files.items() if not LEFT_OUT.search(path)}
    for exercise in exercises():
        texts[f"exercises/{exercise.stem}/exercise.py"] = exercise.stub.read_bytes()
    for path in ("requirements.txt", ".gitignore"):
        texts[path] = (ROOT / path).read_bytes()
    texts |= {path: text.encode() for path, text in adapted()}
    return texts


def adapted() -> Iterator[tuple[str, str]]:
    """The files that are not the same for a class."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    yield "README.md", TESTS.sub("", TEACHERS.sub(HANDING_IN, readme))
    readme = (EXERCISES / "README.md").read_text(encoding="utf-8")
    yield "exercises/README.md", TEACHERS.sub("", readme)
    settings = (ROOT / ".pytest.toml").read_text(encoding="utf-8")
    yield ".pytest.toml", settings.replace('"tests", ', "")
    yield ".github/workflows/check.yml", WORKFLOW


def release(folder: Path) -> int:
    """Write the course of a class into an empty folder; returns the number of files."""
    files = released()
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text)
    return len(files)


def bundle(file: Path, only: list[str]) -> None:
    """Write the zip that Gradescope takes for an autograder."""
    files = {
        path: text
        for path, text in released().items()
        if path == "README.md" or path.startswith("exercises/")
    }
    files["requirements.txt"] = requirements().encode()
    chosen = "".join(f"--only {stem} " for stem in only)
    run = RUN.replace("@BROKEN@", json.dumps(BROKEN)).replace("@ONLY@", chosen)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            add(archive, path, text, 0o644)
        for path, script in {"setup.sh": SETUP, "run_autograder": run}.items():
            add(archive, path, script.encode(), 0o755)


def requirements() -> str:
    """What grading needs: everything but the notebooks."""
    parts = (ROOT / "requirements.txt").read_text(encoding="utf-8").split("\n\n")
    return "\n\n".join(part for part in parts if not part.startswith("# Notebooks"))


def add(archive: zipfile.ZipFile, path: str, text: bytes, mode: int) -> None:
    # Without the time of day, the same course gives the same bytes.
    member = zipfile.ZipInfo(path)
    member.external_attr = (0o100000 | mode) << 16
    member.create_system = 3  # Unix, for the mode to count
    archive.writestr(member, text, zipfile.ZIP_DEFLATED)
