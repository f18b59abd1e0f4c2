"""Bad input, for every floor. Imports nothing."""


class InputError(ValueError):
    """Bad input or configuration; the message is one line: the rule, the value, the fix.

    The command line prints that line and ends with exit code 1.
    """
