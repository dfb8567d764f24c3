"""`python -m bench`, which is `make bench`: the command `townhall bench` (bench/command.py)."""

import sys

from townhall.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
