#!/bin/sh
# Resolve the pins anew: hashes, no addresses. One resolution for all supported Pythons.
set -eu
cd "$(dirname "$0")/.."
uv="${UV:-.venv/bin/uv}"
pin() {
  "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-header --no-annotate "$@"
}
pin --extra demo --extra pods --extra grpc --group dev pyproject.toml -o requirements/dev.txt
pin --extra demo pyproject.toml -c requirements/dev.txt -o requirements/demo.txt
pin requirements/uv.in -c requirements/dev.txt -o requirements/uv.txt
