"""`mrisem VERB [overrides]`: help, version and a wrong verb import no library."""

from __future__ import annotations

import os
import re
import sys

import mrisem
from mrisem.signals import listen

VERBS = {
    "simulate": "simulated subjects in the fastMRI file format",
    "bank": "build or show an embedding bank",
    "train": "fit a backbone over a dataset (warm start)",
    "adapt": "low-rank adaptation of a vision-language model to your images",
    "compress": "a light student of an encoder, or a part of its channels",
    "reconstruct": "reconstruct scans by any method",
    "evaluate": "score reconstructions against targets",
    "report": "one self-contained page from one or many run folders",
    "export": "reconstructions as NIfTI, DICOM or ISMRMRD",
    "doctor": "what is installed, which weights and data are found",
}
_COMPLETION = {"-sc", "--shell-completion"}


def main() -> None:
    """Run the command line, and end the process.

    Exit codes: 0 done, 1 bad input, 2 some scans failed, 130 or 143 interrupted.
    """
    listen()
    arguments = sys.argv[1:]
    debug = "--debug" in arguments or os.environ.get("MRISEM_DEBUG") == "1"
    arguments = [a for a in arguments if a != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        sys.exit(0)
    if arguments[0] == "--version":
        print(mrisem.__version__)
        sys.exit(0)
    if _COMPLETION & {*arguments[:2]}:
        sys.exit(_complete([a for a in arguments if "=" in a]))
    verb, *overrides = arguments
    if verb not in VERBS:
        print(f"mrisem: no verb {verb!r}; choose one of: {', '.join(VERBS)}", file=sys.stderr)
        sys.exit(1)
    from mrisem.verbs.application import run

    sys.exit(run(verb, overrides, debug, VERBS[verb]))


def _complete(action: list[str]) -> int:
    """Install, remove or answer the shell's completion; return the exit code.

    Hydra completes the options of one verb. It is told the line without the verb, which is
    completed here, as choices such as ``model=unet`` are.

    Args:
        action: ``install=bash``, ``uninstall=bash`` or ``query=bash``; or another shell.
    """
    verb = next(iter(VERBS))  # scripts that install are the same for all
    if any(word.startswith("query=") for word in action):
        line = os.environ.get("COMP_LINE", "")
        typed = re.match(r"\s*\S+\s+(?P<verb>\S*)(?P<rest>.*)", line, re.DOTALL)
        verb, rest = (typed["verb"], typed["rest"]) if typed else ("", "")
        if not rest:
            print("\n".join(name for name in VERBS if name.startswith(verb)))
            return 0
        if verb not in VERBS:
            return 0
        from mrisem.config.choices import complete_choice

        if (choices := complete_choice(rest)) is not None:
            print("\n".join(choices))
            return 0
        os.environ["COMP_LINE"] = f"mrisem{rest}"
    from mrisem.verbs.application import complete

    return complete(verb, action)


def _usage() -> str:
    verbs = "\n".join(f"  {name:<12} {does}" for name, does in VERBS.items())
    return (
        "mrisem VERB [overrides]   undersampled MRI guided by a vision-language model\n\n"
        f"{verbs}\n\n"
        "Each verb: --help (its main options), --cfg job (all of them), --multirun (a sweep),\n"
        "--debug (tracebacks). Exit codes: 0 done, 1 bad input, 2 some scans failed,\n"
        "130 or 143 interrupted; the same command continues.\n"
        'Completion of verbs and options in bash: eval "$(mrisem -sc install=bash)"'
    )
