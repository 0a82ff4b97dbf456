"""The exceptions that users are meant to read."""

from cnmc.signals import status_of_signal


class CnmcError(ValueError):
    """Bad input: a file, key or value at fault, what was expected, and the way out.

    Entry points print the message of this exception as one line, without a traceback, and exit
    with status 2. Anything else that escapes is a defect of the program and keeps its traceback.
    """


class RefusedError(CnmcError):
    """A run folder that is not for this run: what is in it is left as it is."""


def is_interruption(error: BaseException) -> bool:
    """Tell whether a scheduler or a signal, and no mistake or defect, is what ends a run.

    submitit raises this error inside a job whose time is up for the last time. What a signal
    interrupted may stumble over itself while it is left.
    """
    return type(error).__name__ == "UncompletedJobError" or status_of_signal() is not None
