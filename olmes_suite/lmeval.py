"""The former place of `SuiteTask`, kept for the task files of users that name it."""

from olmes_suite.tasks.task import SuiteTask

__all__ = ["SuiteTask"]
