"""What nodes need of a worker, and what workers declare: Dask's resources, which keep a node off a small machine."""

from collections.abc import Mapping
from typing import Any

from edgepack.project.graph import Node

#: Names of the resources that a worker declares with `dask worker --resources`, beside its compilers (`QNN=1`).
MEMORY, TENSORFLOW = "MEMORY", "TENSORFLOW"

#: `distributed.Client`: half of its methods have no types.
Client = Any


def resources_of(node: Node) -> dict[str, float]:
    """Return what a worker must have free to run a node, in the units of `dask worker --resources`."""
    needed: dict[str, float] = {MEMORY: node.memory}
    if node.tensorflow:
        needed[TENSORFLOW] = 1
    if node.compiler:
        needed[compiler_resource(node.compiler)] = 1
    return needed


def compiler_resource(compiler: str) -> str:
    """Return the name of the resource that stands for a vendor's compiler: `QNN`."""
    return compiler.upper().replace("-", "_")


def _workers(client: Client) -> list[Mapping[str, Any]]:
    return list(client.scheduler_info(n_workers=-1)["workers"].values())


def declared_resources(client: Client) -> frozenset[str]:
    """Return the names of the resources that workers declare; nodes do not ask for others, which nobody would have."""
    return frozenset(name for worker in _workers(client) for name in worker.get("resources", {}))


def largest_resource(client: Client, resource: str) -> float:
    """Return the most of a resource that one worker declares, 0.0 when none does."""
    return max((float(worker.get("resources", {}).get(resource, 0)) for worker in _workers(client)), default=0.0)
