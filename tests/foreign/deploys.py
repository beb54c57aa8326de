"""Which mistake the last deploy brought: the text of the file that `DEPLOYED` names."""

import os
import pathlib

FILE = pathlib.Path(os.environ.get("DEPLOYED", "deployed.txt"))


def brought() -> str:
    return FILE.read_text().strip() if FILE.exists() else ""
