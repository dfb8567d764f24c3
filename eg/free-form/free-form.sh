#!/usr/bin/env bash
# A story that the model carries on whenever you save it with a blank line at its end: free-form.sh [flags of townhall watch]
# story.txt is put into the folder that you are in, where there is none yet.
set -euo pipefail

here=${BASH_SOURCE[0]} # may be a link to this script
while [ -L "$here" ]; do
  link=$(readlink "$here")
  case $link in /*) here=$link ;; *) here=$(dirname "$here")/$link ;; esac
done
here=$(cd "$(dirname "$here")" && pwd -P)
source "$here/../townhall.sh"

[ -e story.txt ] || cp "$here/story.txt" story.txt
exec "${townhall[@]}" watch story.txt --raw --count 60 "$@"
