#!/usr/bin/env bash
# Prints where a Chromium is: the one that CHROMIUM names, one on PATH, or Debian's own, installed when this user may. Exit code 2 where none is
# to be had. `playwright install` is never used: it fetches a browser from a place of its own.
set -euo pipefail

find_chromium() {
  local name
  for name in chromium google-chrome google-chrome-stable chromium-browser "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"; do
    # Ubuntu's chromium-browser may be a script that only says where the snap is
    if command -v "$name" >/dev/null && "$name" --version >/dev/null 2>&1; then command -v "$name"; return; fi
  done
  return 1
}

if [ -n "${CHROMIUM:-}" ]; then
  "$CHROMIUM" --version >/dev/null 2>&1 || { echo "make: CHROMIUM=$CHROMIUM is no Chromium that starts; name one, or leave CHROMIUM unset" >&2; exit 2; }
  echo "$CHROMIUM"; exit
fi
if find_chromium; then exit; fi

as_root=()
if [ "$(id -u)" != 0 ]; then as_root=(sudo -n); fi
if command -v apt-get >/dev/null && "${as_root[@]}" true 2>/dev/null; then
  echo "installing Debian's chromium and two fonts (about 130 MB)" >&2
  {
    export DEBIAN_FRONTEND=noninteractive
    "${as_root[@]}" apt-get update -q -o Acquire::Retries=3
    "${as_root[@]}" apt-get install -q -y -o Acquire::Retries=3 --no-install-recommends chromium fonts-dejavu-core fonts-noto-color-emoji
  } </dev/null >&2 || echo "make: apt-get could not install chromium" >&2
  hash -r
  if find_chromium; then exit; fi
fi
echo "make: the tests of the web page need Chromium or Chrome; install it (Debian: apt install chromium), or name it with CHROMIUM=/path" >&2
exit 2
