"""SIGINT, SIGTERM and SIGHUP: one exception, exit code 128 + number, never where files would be left.

Imports only what Python itself has loaded at start, so that the command line can install the handlers first of all:
after 14 ms of CPU time, 12 of which are the interpreter's own start (measured with wait4). A signal before that ends
the process as the system does, which shells report with the same codes; SIGINT can also end the interpreter's start
with exit code 1 and a traceback.
"""

import _thread
import os
import sys

try:
    # Built into CPython. `signal` wraps it in enums, whose import takes 5 ms.
    import _signal as signal  # type: ignore[import-not-found]
except ImportError:
    import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType

SIGNALS: tuple[int, ...] = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Interrupted(KeyboardInterrupt):
    """A signal ends the command."""


#: The thread that signals interrupt: the one that imports this module first of all.
_MAIN = _thread.get_ident()

#: Seconds until a dropped exception is raised again: longer than a destructor of ours takes.
_MOMENT = 0.005

_held = 0
_waiting = 0
_received = 0


def exit_at_once() -> None:
    """Let a signal end the process: before a command starts and after it ended there is nothing to clean up."""
    _install(_exit)


def raise_interrupted() -> None:
    """Let the first signal raise `Interrupted` in the main thread; later ones do not disturb the clean-up."""
    global _received, _waiting  # noqa: PLW0603 - the state of the process's handlers
    _received = _waiting = 0
    sys.unraisablehook = _raise_again
    _install(_raise)


def received() -> bool:
    """Return whether a signal has arrived since `raise_interrupted`."""
    return _received != 0


def exit_code() -> int:
    """Return 128 + the number of the received signal, as shells report it: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + (_received or signal.SIGINT)


class hold:
    """Delay signals until the end of a short section, between whose steps something would be left behind.

    In another thread than the main one, which no signal interrupts, it does nothing: whoever started the thread waits
    for its end.
    """

    def __enter__(self) -> None:
        global _held  # noqa: PLW0603
        if _thread.get_ident() == _MAIN:
            _held += 1

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        global _held  # noqa: PLW0603
        if _thread.get_ident() != _MAIN:
            return
        _held -= 1
        if not _held and _waiting:
            _release()


def _install(handler: object) -> None:
    for number in SIGNALS:
        # What the parent process ignores (`nohup`, background jobs of a script) stays ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _exit(number: int, frame: "FrameType | None") -> None:
    os.write(2, b"interrupted\n")
    os._exit(128 + number)


def _raise(number: int, frame: "FrameType | None") -> None:
    global _received  # noqa: PLW0603
    if _received:
        return
    _received = number
    _raise_received(number, frame)


def _raise_again(dropped: "sys.UnraisableHookArgs") -> None:
    """Raise `Interrupted` once more, a moment later, where Python dropped it: in a destructor or a callback.

    Nothing raised in here reaches the command either, so a timer interrupts what runs after the destructor. It may meet
    another destructor; then it is set again.
    """
    if not isinstance(dropped.exc_value, Interrupted):
        sys.__unraisablehook__(dropped)
    elif hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _raise_received)
        signal.setitimer(signal.ITIMER_REAL, _MOMENT)


def _raise_received(number: int, frame: "FrameType | None") -> None:
    """Raise `Interrupted` for the signal that was received, whichever signal calls this; or wait while it is held."""
    global _waiting  # noqa: PLW0603
    if _held:
        _waiting = _received
        return
    raise Interrupted(_received)


def _release() -> None:
    global _waiting
    number, _waiting = _waiting, 0
    raise Interrupted(number)
