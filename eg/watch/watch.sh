#!/usr/bin/env bash
# A conversation in a file, beside your editor: watch.sh [flags of townhall watch]
# talk.chat is put into the folder that you are in, where there is none yet. Open it in an editor; contrib/vim/chat.vim makes vim a good one.
set -euo pipefail

here=${BASH_SOURCE[0]} # may be a link to this script
while [ -L "$here" ]; do
  link=$(readlink "$here")
  case $link in /*) here=$link ;; *) here=$(dirname "$here")/$link ;; esac
done
here=$(cd "$(dirname "$here")" && pwd -P)
source "$here/../townhall.sh"

[ -e talk.chat ] || cp "$here/talk.chat" talk.chat
exec "${townhall[@]}" watch talk.chat "$@"
