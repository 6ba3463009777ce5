"""Training with labelled data: quantization-aware training, pruning, clustering, through TFMOT in a child process."""

from edgepack.train.api import train
from edgepack.train.model import RECIPES, Trained, TrainOptions
from edgepack.train.report import FileReport, LayerReport, read_report

__all__ = ["RECIPES", "FileReport", "LayerReport", "TrainOptions", "Trained", "read_report", "train"]
