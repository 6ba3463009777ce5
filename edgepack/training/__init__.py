"""Training with labelled data: quantization-aware training, pruning and clustering by TFMOT in a child process."""

from edgepack.training.api import require_labels, train
from edgepack.training.model import RECIPES, Trained, TrainOptions
from edgepack.training.report import FileReport, LayerReport, read_report

__all__ = ["RECIPES", "FileReport", "LayerReport", "TrainOptions", "Trained", "read_report", "require_labels", "train"]
