"""The part of a run that a worker of a Dask cluster executes."""

import threading
from collections.abc import Mapping, Sequence

from edgepack.errors import EdgepackError
from edgepack.project.executors import failed_needs
from edgepack.project.node import Outcome, Work
from edgepack.project.processes import LostError, NodeProcess

#: Topic of the events that workers send to the client.
TOPIC = "edgepack"

_local = threading.local()


def run_on_worker(task: Work, run: str, needs: Mapping[str, Outcome | None], after: Sequence[Outcome]) -> Outcome:
    """Run a node in a process of this worker.

    Args:
        task: The node.
        run: Identity of the run, for its events.
        needs: Outcomes of the nodes without which it fails, by id.
        after: Outcomes of the nodes that it only waited for.
    """
    failures = {name: outcome.error for name, outcome in needs.items() if outcome is not None and outcome.error}
    if (outcome := failed_needs(task.node, failures)) is not None:
        return outcome
    _tell(run, task.node.id, "started", "")
    process = _process()
    try:
        return process.run(
            task,
            lambda line: _tell(run, task.node.id, "step", line),
            lambda line: _tell(run, "", "notice", line),
        )
    except LostError as error:
        return Outcome(task.node.id, lines=(f"its process ended ({error})",), retry=True)
    except RuntimeError as error:
        return Outcome(task.node.id, EdgepackError(f"this is a bug in edgepack: {error}", hint="please report it"))


def _process() -> NodeProcess:
    """Return the process of this thread of the worker, which serves one node after another."""
    if not hasattr(_local, "process"):
        _local.process = NodeProcess()
    process: NodeProcess = _local.process
    return process


def _tell(run: str, node: str, kind: str, text: str) -> None:
    from distributed import get_worker

    get_worker().log_event(TOPIC, {"run": run, "node": node, "kind": kind, "text": text})
