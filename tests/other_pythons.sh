#!/bin/sh
# The sampler, the recording, the service and the profiles on the other supported Pythons that
# this machine has: those of pyenv, else those on the PATH.
set -eu
cd "$(dirname "$0")/.."
own=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
for version in 3.11 3.12 3.13; do
  [ "$version" = "$own" ] && continue
  python=""
  for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python "$(command -v "python$version" || true)"; do
    [ -n "$candidate" ] && [ -x "$candidate" ] && "$candidate" -c '' 2>/dev/null && python=$candidate
  done
  if [ -z "$python" ]; then
    echo "Python $version: not on this machine, not tested"
    continue
  fi
  environment=.venv/others/$version
  stamp=$environment/dev.stamp
  if [ ! -e "$stamp" ] || [ requirements/dev.txt -nt "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    .venv/bin/uv --quiet venv --allow-existing --python "$python" "$environment"
    .venv/bin/uv --quiet pip install --python "$environment/bin/python" --require-hashes -r requirements/dev.txt
    .venv/bin/uv --quiet pip install --python "$environment/bin/python" --no-deps -e .
    touch "$stamp"
  fi
  echo "== Python $version"
  tests/run.sh "$environment/bin/pytest" -m every_python -- -n 2 --dist loadfile
done
