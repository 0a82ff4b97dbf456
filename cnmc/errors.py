"""The errors whose messages are written for users."""

from cnmc.signals import status_of_signal

_HINTS = {
    "LayerwiseRates": "one rate for all layers is optimizer=flat optimizer.lr=1e-4, one by stage "
    "optimizer.lr.head=1e-3",
    "CellsConfig": "data.root=DIR names the folder of the cells",
    "Key 'data' not in 'BestConfig'": "manifest=DIGITS names a data set by its fingerprint",
    "hydra.cc/docs": "quote a value with special characters: 'key=\"value\"'",
}
"""What to do about an error of Hydra, by a part of its message."""


class CnmcError(ValueError):
    """Bad input. The message names the file, key or value, what was expected and what to do.

    Commands print it as one line, without a traceback, and exit with status 2. Any other error is a
    defect of the program and keeps its traceback.
    """


class RefusedError(CnmcError):
    """A run folder that belongs to another run, and stays unchanged."""


def is_interruption(error: BaseException) -> bool:
    """Return whether a signal or a scheduler ended a run, not a mistake or a defect.

    After a signal any error counts, since libraries that are interrupted may raise their own.
    submitit raises ``UncompletedJobError`` in a job whose time is up for the last time.
    """
    return type(error).__name__ == "UncompletedJobError" or status_of_signal() is not None


def one_line(error: BaseException) -> str:
    """Return the message of an error and of its causes as one line."""
    parts: list[str] = []
    seen: BaseException | None = error
    while seen is not None:
        for line in str(seen).splitlines():
            text = line.strip().rstrip(".")
            if text.startswith("Config search path"):
                break
            if text.startswith("To append to your config"):
                continue
            # OmegaConf ends its messages with the path and type of the node.
            if text.startswith("full_key: "):
                text = text.removeprefix("full_key: ")
                text = "" if any(text in part for part in parts) else f"key {text}"
            if text and not text.startswith(("object_type=", "reference_type=")):
                parts += [text] if text not in parts else []
        seen = seen.__cause__
    message = "; ".join(parts) or type(error).__name__
    hints = [hint for words, hint in _HINTS.items() if words in message]
    return "; ".join([message, *hints])
