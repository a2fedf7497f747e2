"""One family of errors; each carries the exit code of the command line and, where there is one, the fix."""

from __future__ import annotations

import traceback


class XbenchError(Exception):
    """An error that xbench can explain in one line.

    Args:
        message: Description of the fault, which names the thing and the value.
        hint: Advice for the user, or an empty string.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def kept(self) -> XbenchError:
        """Return a copy that may be kept. It tells where it was raised in a note (`__notes__`) instead of in frames.

        Frames would keep everything that was used in them: networks, batches, maps. The copy is a new error of the same
        kind, so that it does not keep anything that others attached to this one either.
        """
        kind = next(one for one in type(self).__mro__ if one.__module__ == __name__)
        error: XbenchError = kind(self.message, self.hint)
        error.add_note("".join(["Raised here:\n", *traceback.format_exception(self)]).rstrip())
        return error


class UserError(XbenchError):
    """The user asked for something that does not exist, does not fit, or cannot be read. Exit code 2."""

    exit_code = 2


class PluginError(XbenchError):
    """A plugin broke its contract or raised. Exit code 3."""

    exit_code = 3


class ArtifactError(XbenchError):
    """A cached artifact is damaged or cannot be written. Exit code 1."""
