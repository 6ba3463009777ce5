"""Representative and labelled data: reading, matching to a model's inputs, and checks for common mistakes."""

from edgepack.samples.lint import lint
from edgepack.samples.load import InputSpec, load_samples
from edgepack.samples.source import Preprocess, SampleSet

__all__ = ["InputSpec", "Preprocess", "SampleSet", "lint", "load_samples"]
