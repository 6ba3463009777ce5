"""Native code that aborts ends a child process, never the command."""

import time

import pytest

from edgepack.child import ChildCrash, ChildException, ChildTimeout, Worker
from edgepack.errors import UsageError


def test_values_travel_both_ways() -> None:
    """A call returns the function's result; the child serves the next call as well."""
    with Worker() as worker:
        assert worker.call("os.path:join", "a", "b") == "a/b"
        first = worker.call("os:getpid")
        assert worker.call("os:getpid") == first


def test_our_errors_arrive_as_they_were() -> None:
    """An EdgepackError raised in the child is raised in the parent, with its hint."""
    with Worker() as worker, pytest.raises(UsageError) as caught:
        worker.call("edgepack.schemes:get_scheme", "int9")
    assert "int9" in caught.value.message
    assert "int8" in caught.value.hint


def test_errors_arrive_where_a_library_pickles_exceptions_itself() -> None:
    """Functions that a library registers for all exceptions, as TensorFlow does with tblib, do not reach a reply."""
    pytest.importorskip("tblib", reason="tblib is not installed")
    with Worker() as worker:
        worker.call("tblib.pickling_support:install")
        with pytest.raises(UsageError, match="int9"):
            worker.call("edgepack.schemes:get_scheme", "int9")


def test_other_errors_carry_their_traceback() -> None:
    """Any other exception is reported with its type, its message and a log."""
    with Worker() as worker, pytest.raises(ChildException) as caught:
        worker.call("math:sqrt", "x")
    assert caught.value.reason.startswith("TypeError")
    assert "Traceback" in caught.value.log_tail


def test_an_abort_is_an_error_and_the_next_call_works() -> None:
    """A child that aborts is reported with the signal's name; a new child serves the next call."""
    with Worker() as worker:
        with pytest.raises(ChildCrash, match="SIGABRT"):
            worker.call("os:abort")
        assert worker.call("os.path:basename", "a/b") == "b"


def test_a_time_limit_kills() -> None:
    """A call that exceeds its time limit is ended."""
    start = time.monotonic()
    with Worker() as worker, pytest.raises(ChildTimeout):
        worker.call("time:sleep", 60, timeout=0.5)
    assert time.monotonic() - start < 20


def test_what_a_child_prints_never_reaches_the_user(capfd: pytest.CaptureFixture[str]) -> None:
    """The output of native libraries goes to the log, not to stdout, where it would break --json."""
    with Worker() as worker:
        worker.call("os:system", "echo noise; echo more >&2")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_threads_of_a_child_do_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy's threads sleep between products, unless the user has said how long they wait."""
    name = "OPENBLAS_THREAD_TIMEOUT"
    monkeypatch.delenv(name, raising=False)
    with Worker() as worker:
        assert worker.call("os:getenv", name) == "12"
    monkeypatch.setenv(name, "20")
    with Worker() as worker:
        assert worker.call("os:getenv", name) == "20"
