#!/usr/bin/env bash
# A question out of a file, the same with its answer on standard output: one-shot.sh [FILE] [flags of townhall watch]
# The file itself, question.chat where none is named, stays as it is.
set -euo pipefail

here=${BASH_SOURCE[0]} # may be a link to this script
while [ -L "$here" ]; do
  link=$(readlink "$here")
  case $link in /*) here=$link ;; *) here=$(dirname "$here")/$link ;; esac
done
here=$(cd "$(dirname "$here")" && pwd -P)
source "$here/../townhall.sh"

question=$here/question.chat
if [ $# -gt 0 ] && [ -f "$1" ]; then
  question=$1
  shift
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp "$question" "$folder/question.chat"
chmod u+w "$folder/question.chat"
"${townhall[@]}" watch --once "$folder/question.chat" "$@"
cat "$folder/question.chat"
echo
