"""`townhall` and `python -m townhall`."""

import sys


def main() -> int:
    """The command line's exit code; a Ctrl-C that comes while its first modules are still imported is no traceback either."""
    try:
        from townhall.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
