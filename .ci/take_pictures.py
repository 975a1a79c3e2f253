"""Takes the pictures of the README out of the notebooks that drew them.

    python .ci/take_pictures.py

They are what the cells have shown when the notebooks were last refreshed, and nothing is
drawn here; a test compares them.
"""

import json
from base64 import b64decode
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".github" / "pictures"
# Each picture, and the notebook and cell that show it.
SOURCES = {
    "ghost.svg": ("03_chat_server", "chat-10"),
    "slow_reader.png": ("03_chat_server", "chat-26"),
}


def picture(name: str) -> bytes:
    """A picture, as its notebook holds it."""
    notebook, cell_id = SOURCES[name]
    file = ROOT / "notebooks" / f"{notebook}.ipynb"
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    (cell,) = [cell for cell in cells if cell["id"] == cell_id]
    shown = [output["data"] for output in cell["outputs"] if "data" in output]
    if name.endswith(".svg"):
        (text,) = [data["image/svg+xml"] for data in shown if "image/svg+xml" in data]
        return "".join(text).encode()
    (encoded,) = [data["image/png"] for data in shown if "image/png" in data]
    return b64decode("".join(encoded))


if __name__ == "__main__":
    PLACE.mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        (PLACE / name).write_bytes(picture(name))
