"""The errors that reach a user, as one line with a non-zero exit code."""

from typing import ClassVar


class DmpWorkflowError(Exception):
    """The operation failed.

    ``exit_code`` is what a command ends with, ``http_status`` what the server answers, and ``transient`` says
    whether the same call may succeed later. The docstring of a class is its default message.
    """

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    transient: ClassVar[bool] = False

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])


class InvalidInput(DmpWorkflowError):
    """The input is not valid."""

    exit_code = 2
    http_status = 422


class NotFound(DmpWorkflowError):
    """There is no such thing."""

    exit_code = 3
    http_status = 404


class Conflict(DmpWorkflowError):
    """The present state does not allow that."""

    exit_code = 4
    http_status = 409


class AccessDenied(DmpWorkflowError):
    """The credential does not allow that."""

    exit_code = 5
    http_status = 403


class Unavailable(DmpWorkflowError):
    """A service that is needed does not answer now."""

    exit_code = 6
    http_status = 503
    transient = True


class ConfigurationError(DmpWorkflowError):
    """The configuration is not valid."""

    exit_code = 7
