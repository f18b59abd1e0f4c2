"""The command line's entry: it listens to signals before anything heavy is imported."""

from __future__ import annotations

import gc
import sys

from mrisem.signals import Interrupted, listen


def main() -> None:
    """Run the command line, and end the process (`mrisem.cli.main`)."""
    listen()
    gc.disable()  # what is imported is no garbage, but would be searched for it; a job enables it
    try:
        from mrisem.cli import main as run

        run()
    except Interrupted as stop:
        sys.stderr.write(f"mrisem: interrupted by {stop}: nothing was begun\n")
        sys.exit(stop.exit_code)


if __name__ == "__main__":
    main()
