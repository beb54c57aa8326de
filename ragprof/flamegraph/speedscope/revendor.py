"""Takes the speedscope viewer anew from npm: ``python revendor.py [VERSION]``; needs npm.

The files are copied as they are. `VENDORED.json` records the package, its version, licence and
integrity as npm states it, and the SHA-256 of every file; the tests compare them.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = "speedscope"
WANTED = {
    "LICENSE": "LICENSE",
    "speedscope-*.js": "speedscope.js",
    "speedscope-*.css": "speedscope.css",
}


def main(version: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        packed = subprocess.run(
            ["npm", "pack", "--json", f"{PACKAGE}@{version}"],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        )
        (told,) = json.loads(packed.stdout)
        with tarfile.open(folder / told["filename"]) as archive:
            archive.extractall(folder, filter="data")
        package = json.loads((folder / "package/package.json").read_text(encoding="utf-8"))
        files = {}
        for pattern, name in WANTED.items():
            (source,) = (folder / "package").rglob(pattern)
            (HERE / name).write_bytes(source.read_bytes())
            files[name] = {
                "source": str(source.relative_to(folder / "package")),
                "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
            }
    record = {
        "package": PACKAGE,
        "version": told["version"],
        "licence": package["license"],
        "integrity": told["integrity"],
        "files": files,
    }
    text = json.dumps(record, indent=1) + "\n"
    (HERE / "VENDORED.json").write_text(text, encoding="utf-8")
    print(f"{PACKAGE} {told['version']}: {', '.join(files)}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "latest")
