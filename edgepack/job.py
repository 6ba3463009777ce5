"""Jobs that run in a child process, and the ways in which a child fails."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar

from edgepack.errors import EdgepackError

P = ParamSpec("P")
R = TypeVar("R")


class ChildCrash(Exception):
    """The child process died before it replied.

    Attributes:
        reason: `signal 11 (SIGSEGV)` or `exit code 3`.
        log_tail: Last lines that the child printed.
    """

    def __init__(self, reason: str, log_tail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.log_tail = log_tail


class ChildTimeout(ChildCrash):
    """The child process exceeded its time limit and was killed; `reason` names the limit."""


class ChildMemory(ChildCrash):
    """The child process exceeded its memory limit and was killed; `reason` names the limit."""


class ChildException(ChildCrash):
    """The function raised an exception other than `EdgepackError`; `reason` is its type and message."""


@dataclass(frozen=True)
class Job(Generic[P, R]):
    """A function that runs in a child process, with the error that its failure becomes.

    Attributes:
        function: A function at module level; its arguments and its result must be picklable.
        error: Raised when the child dies, exceeds its time limit or raises an exception other than `EdgepackError`.
        purpose: What the function does, as the subject of an error message (`calibration`).
        hint: What the user can do when it fails.
    """

    function: Callable[P, R]
    error: type[EdgepackError]
    purpose: str
    hint: str = ""

    def call(self, *args: P.args, **kwargs: P.kwargs) -> "JobCall[R]":
        """Bind the arguments; a type checker compares them with the function's signature."""
        return JobCall(self, args, kwargs)

    @property
    def reference(self) -> str:
        """The function as `module:name`, which is how the child finds it."""
        return f"{self.function.__module__}:{self.function.__name__}"


@dataclass(frozen=True)
class JobCall(Generic[R]):
    """A job with its arguments."""

    job: Job[Any, R]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


_LIMIT_HINTS = (
    (ChildTimeout, "raise the limit with --timeout if the model needs longer; one that never ends is not usable"),
    (ChildMemory, "raise the limit with --memory-limit if the machine has more memory, or use a smaller model"),
)


def reached_limit(error: BaseException) -> bool:
    """Return whether an error was raised because a child reached its time or memory limit."""
    return isinstance(error.__cause__, ChildTimeout | ChildMemory)


def limit_hint(crash: ChildCrash) -> str:
    """Return what to do about a limit that was reached, empty for another crash."""
    return next((hint for kind, hint in _LIMIT_HINTS if isinstance(crash, kind)), "")
