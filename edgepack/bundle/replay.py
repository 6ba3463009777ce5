"""Run a bundle's host model in a child process: on its golden inputs, or on zeros where it has no golden vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepack.bundle.golden import RUN_GOLDEN, Array
from edgepack.bundle.verify_result import BUILD_AGAIN, Problem
from edgepack.child import ChildTimeout, Worker
from edgepack.errors import EdgepackError
from edgepack.graph import read_model
from edgepack.runtime.runner import model_inputs, needs_custom_ops


@dataclass(frozen=True)
class Replay:
    """Result of running a model.

    Attributes:
        results: Raw outputs of each case; empty when the model does not run.
        problems: Why it does not run.
        notes: What could not be checked.
    """

    results: Sequence[Sequence[Array]] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


def replay_cases(
    path: str, data: bytes, cases: Sequence[Sequence[Any]], worker: Worker | None, timeout: float
) -> Replay:
    """Return the outputs of each case, or the problem when the model does not run.

    Args:
        path: The model's path in the bundle, for the problem.
        data: The model.
        cases: Raw inputs of each case.
        worker: Child process; None starts one for this call.
        timeout: Seconds until the child is killed.
    """
    try:
        return Replay(_run(data, cases, worker, timeout))
    except EdgepackError as error:
        return Replay(problems=(_problem(path, error, timeout),))


def replay_zeros(path: str, data: bytes, worker: Worker | None, timeout: float) -> Replay:
    """Run a model without golden vectors once on zeros: a file that cannot be loaded, or aborts, is a problem.

    A build leaves golden vectors out only where the model needs custom ops that the target's delegate runs. Whether
    such a file is sound cannot be checked here, which a note says.

    Args:
        path: The model's path in the bundle, for the problem.
        data: The model.
        worker: Child process; None starts one for this call.
        timeout: Seconds until the child is killed.
    """
    zeros = [np.zeros(info.shape, info.dtype) for info in model_inputs(read_model(data))]
    try:
        _run(data, [zeros], worker, timeout)
    except EdgepackError as error:
        if not needs_custom_ops(error):
            return Replay(problems=(_problem(path, error, timeout),))
        return Replay(notes=(f"the model was not run and has no golden vectors: {error.message}",))
    return Replay(notes=("the bundle contains no golden vectors: the model runs, its outputs were not compared",))


def _run(
    data: bytes, cases: Sequence[Sequence[Any]], worker: Worker | None, timeout: float
) -> Sequence[Sequence[Array]]:
    own = Worker() if worker is None else worker
    try:
        return own.run(RUN_GOLDEN.call(data, cases), timeout=timeout)
    finally:
        if worker is None:
            own.close()


def _problem(path: str, error: EdgepackError, timeout: float) -> Problem:
    if isinstance(error.__cause__, ChildTimeout):
        return Problem(
            path,
            f"the replay of the golden vectors exceeded its time limit of {timeout:g} s",
            "raise the limit with --timeout, or verify it on a faster machine",
        )
    return Problem(path, error.message, error.hint or BUILD_AGAIN)
