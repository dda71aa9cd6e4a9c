"""What a job may fail with. Each error has the exit code that schedulers act on, and one clear line for people."""


class JobError(Exception):
    """A failure with a message for people: what, where, why, and the next command."""

    exit_code = 1


class UsageError(JobError):
    """The command or the settings are wrong; nothing was read or written."""

    exit_code = 2


class DataQualityError(JobError):
    """The data is not fit for use; nothing was published."""

    exit_code = 3


class ModelGateError(JobError):
    """There is no model that may be used."""

    exit_code = 4


class BusyError(JobError):
    """Another run holds the tables; try again later."""

    exit_code = 75
