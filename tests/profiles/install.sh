#!/bin/sh
# Programs that open what ragprof writes, for the tests: inferno (crates.io), into the cache folder;
# go with its pprof must be on the PATH. `install.sh peers` makes the environment of the peers that
# benchmarks/profile_formats.py and benchmarks/flamegraph.py compare with.
set -eu
tools=${RAGPROF_TOOLS:-$HOME/.cache/ragprof/tools}
mkdir -p "$tools"

if [ "${1:-}" = peers ]; then
  [ -x "$tools/peers/bin/python" ] || python3 -m venv "$tools/peers"
  "$tools/peers/bin/python" -m pip install --quiet flamegraph-textual==0.1.2 flameprof==0.4
  exit 0
fi

if [ ! -x "$tools/bin/inferno-flamegraph" ] || [ ! -x "$tools/bin/inferno-diff-folded" ]; then
  command -v cargo >/dev/null || {
    echo "The tests of profile formats need inferno: install Rust's cargo, then run this again." >&2
    exit 1
  }
  cargo install --quiet --locked --version 0.12.8 --root "$tools" inferno
fi
command -v go >/dev/null || {
  echo "The tests of profile formats open pprof files with 'go tool pprof': install Go." >&2
  exit 1
}
go tool pprof -h >/dev/null 2>&1 || true # builds it once, where Go does not ship it built
