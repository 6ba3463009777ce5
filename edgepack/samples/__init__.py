"""Representative and labelled data: read it, match it to a model's inputs, look at it for known mistakes."""

from edgepack.samples.lint import lint
from edgepack.samples.load import InputSpec, load_samples
from edgepack.samples.source import Preprocess, SampleSet

__all__ = ["InputSpec", "Preprocess", "SampleSet", "lint", "load_samples"]
