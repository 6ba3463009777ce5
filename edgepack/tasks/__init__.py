"""What the outputs of a model mean, and the results that follow from it."""

from edgepack.tasks.spec import TaskSpec, classes_of, fault_of, from_json, parse

__all__ = ["TaskSpec", "classes_of", "fault_of", "from_json", "parse"]
