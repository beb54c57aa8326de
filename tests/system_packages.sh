#!/bin/sh
# What the tests need from the system: headless Chromium with its driver.
set -eu
if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then
  exit 0
fi
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium chromium-driver fonts-dejavu-core >/dev/null
else
  echo "The tests need Chromium and ChromeDriver on the PATH: sudo apt-get install chromium chromium-driver" >&2
  exit 1
fi
