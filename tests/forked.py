"""What a process of `conftest.fork` does; it is given command, cwd, environment, streams."""

import os
import runpy
import signal
import sys
from pathlib import Path

os.environ.clear()
os.environ.update(environment)  # noqa: F821
os.chdir(cwd)  # noqa: F821
sys.path[:0] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
for number, path in enumerate(streams, 1):  # noqa: F821
    os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
sys.argv = command  # noqa: F821
os.setsid()
signal.signal(signal.SIGINT, signal.default_int_handler)
if sys.argv[0] == "mrisem":
    from mrisem.__main__ import main

    main()
else:
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
