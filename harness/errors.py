"""Errors a user can do something about: one line that says what to do, printed instead of a traceback."""


class HarnessError(Exception):
    """Base of the errors that end a command with one clear line."""

    exit_code = 2


class UsageError(HarnessError):
    """The request itself is wrong: an unknown name, a bad option, an invalid file. Exit code 3."""

    exit_code = 3


class InfrastructureError(HarnessError):
    """What the harness stands on failed: Docker, FUSE, disk space, a node that never booted. Exit code 2."""


class Aborted(HarnessError):
    """The run was stopped on purpose (Ctrl-C, `pbx-chaos abort`). Exit code 2, everything healed first."""


class Interrupted(BaseException):
    """A signal asked this process to stop. Not an `Exception`, because many a library would swallow or rename that; not
    a `KeyboardInterrupt`, because the command-line library has its own words for it."""
