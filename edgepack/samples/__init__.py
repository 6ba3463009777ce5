"""Representative and labelled data: reading, matching to a model's inputs, and checks for common mistakes."""

from edgepack.samples.lint import lint
from edgepack.samples.load import load_samples
from edgepack.samples.source import InputSpec, Preprocess, SampleObject, SampleSet, SampleSource

__all__ = ["InputSpec", "Preprocess", "SampleObject", "SampleSet", "SampleSource", "lint", "load_samples"]
