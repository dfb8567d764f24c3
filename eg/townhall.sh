# Sourced by the examples, $here being the example's folder: $townhall is the command, the checkout's own where that is set up.
root=$(cd "$here/../.." && pwd -P)
if [ -x "$root/.venv/bin/townhall" ]; then
  townhall=("$root/.venv/bin/townhall")
elif command -v townhall > /dev/null; then
  townhall=(townhall)
elif python3 -c 'import click, tinygrad' 2> /dev/null; then
  townhall=(env PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" python3 -m townhall)
else
  echo "${0##*/}: there is no townhall yet; run \`make setup\` in $root" >&2
  exit 2
fi
