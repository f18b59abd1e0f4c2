"""The command line's entry: it listens to signals before anything heavy is imported."""

from __future__ import annotations

import sys

from mrisem.signals import Interrupted, listen


def main() -> None:
    """Run the command line, and end the process (`mrisem.cli.main`)."""
    listen()
    try:
        from mrisem.cli import main as run

        run()
    except Interrupted as stop:
        sys.stderr.write(f"mrisem: interrupted by {stop}: nothing was begun\n")
        sys.exit(stop.exit_code)


if __name__ == "__main__":
    main()
