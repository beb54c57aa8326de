#!/bin/sh
# The servers that the tests talk to: Debian packages, and the rest in a cache of its own.
# Called by `make test`; a second call takes a second.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${RAGPROF_BACKENDS:-$HOME/.cache/ragprof/backends}
mkdir -p "$cache"

if ! { command -v prometheus && command -v promtool && command -v prometheus-alertmanager &&
  [ -x /usr/sbin/rsyslogd ] && ls /usr/lib/*/rsyslog/omelasticsearch.so; } >/dev/null 2>&1; then
  packages="prometheus prometheus-alertmanager rsyslog rsyslog-elasticsearch"
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
  else
    echo "The tests need Prometheus, Alertmanager and rsyslog: sudo apt-get install $packages" >&2
    exit 1
  fi
fi

elasticsearch() { # version sha256
  home="$cache/elasticsearch-$1"
  [ -d "$home" ] && return
  command -v mvn >/dev/null || { echo "Elasticsearch comes by Maven: install mvn" >&2; exit 1; }
  mvn -q -B dependency:get -Dtransitive=false -Dmaven.repo.local="$cache/maven" \
    -Dartifact=org.elasticsearch.distribution.integ-test-zip:elasticsearch:"$1":zip
  zip=$(find "$cache/maven" -name "elasticsearch-$1.zip")
  echo "$2  $zip" | sha256sum --check --quiet
  part=$(mktemp -d "$cache/part.XXXXXX")
  python3 -m zipfile -e "$zip" "$part"
  chmod +x "$part/elasticsearch-$1"/bin/*
  mv "$part/elasticsearch-$1" "$home"
  rm -rf "$part" "$cache/maven"
}
elasticsearch 8.19.5 5d3a8f63f66d828a24d29f88819bf2c6e695d124c470da3ab92a5d6cc1397785
elasticsearch 9.2.0 bf44938a0490ba2a303d39c9cb64b38963dd08c812ce93e10816e878585bcb6b

# go.sum pins every module that is built in.
stamp=$(cat "$here/jaeger/go.mod" "$here/jaeger/go.sum" | sha256sum | cut -c1-16)
if [ ! -x "$cache/jaeger" ] || [ "$(cat "$cache/jaeger.stamp" 2>/dev/null)" != "$stamp" ]; then
  command -v go >/dev/null || { echo "Jaeger is built from source: install Go 1.25 or newer" >&2; exit 1; }
  (cd "$here/jaeger" && go build -mod=readonly -trimpath -ldflags='-s -w' \
    -o "$cache/jaeger.part" github.com/jaegertracing/jaeger/cmd/jaeger)
  mv "$cache/jaeger.part" "$cache/jaeger"
  echo "$stamp" >"$cache/jaeger.stamp"
fi

# The other major version of elasticsearch-py, beside the one in the environment.
client="$cache/elasticsearch-py-8"
if ! cmp -s "$here/elasticsearch-py-8.txt" "$client/installed.txt"; then
  uv="$here/../../.venv/bin/uv"
  if [ -x "$uv" ]; then install="$uv pip install --quiet"; else install="python3 -m pip install --quiet"; fi
  rm -rf "$client"
  $install --require-hashes --no-deps --target "$client" -r "$here/elasticsearch-py-8.txt"
  cp "$here/elasticsearch-py-8.txt" "$client/installed.txt"
fi
