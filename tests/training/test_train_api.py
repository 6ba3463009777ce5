"""Invalid requests are refused before TensorFlow is loaded."""

from pathlib import Path

import numpy as np
import pytest

from edgepack.child import Worker
from edgepack.errors import SamplesError, TransformError, UsageError
from edgepack.samples import SampleSet
from edgepack.training import RECIPES, TrainOptions, train


def samples(count: int = 20, labels: bool = True) -> SampleSet:
    array = np.zeros((count, 4), np.float32)
    classes = np.zeros(count, np.int64) if labels else None
    return SampleSet("x.npz", "d", {"x": array}, {"x": (1, 4)}, {"x": array.dtype}, labels=classes)


@pytest.mark.parametrize(
    ("recipe", "options", "data", "name", "kind", "text"),
    [
        ("qta", {}, samples(), "m.keras", UsageError, "--recipe: expected qat, .* got 'qta'"),
        ("qat", {"loss": "hinge"}, samples(), "m.keras", UsageError, "--loss: expected .* got 'hinge'"),
        ("prune", {"pattern": "3:7"}, samples(), "m.keras", UsageError, "--pattern: expected 2:4 or block, got '3:7'"),
        ("prune", {"pattern": "2:4", "sparsity": 0.8}, samples(), "m.keras", UsageError, "makes half"),
        ("prune", {"sparsity": 1.0}, samples(), "m.keras", UsageError, "between 0 and 1"),
        (
            "prune",
            {"schedule": "linear"},
            samples(),
            "m.keras",
            UsageError,
            "--schedule: expected constant or polynomial, got 'linear'",
        ),
        ("cluster", {"clusters": 2}, samples(), "m.keras", UsageError, "expected 3 to 256, got 2"),
        ("qat", {}, samples(labels=False), "m.keras", SamplesError, "'x.npz' have no labels"),
        ("qat", {}, samples(3), "m.keras", SamplesError, "only 3 samples"),
        ("qat", {}, samples(), "m.tflite", TransformError, "only a Keras model"),
    ],
)
def test_refusals(
    tmp_path: Path, recipe: str, options: dict, data: SampleSet, name: str, kind: type[Exception], text: str
) -> None:
    """Invalid recipes, options, data and files are refused, and no child process is started."""
    (tmp_path / name).write_bytes(b"x")
    with Worker() as worker:
        with pytest.raises(kind, match=text):
            train(
                tmp_path / name, worker=worker, reference=b"", data=data, recipe=recipe,
                options=TrainOptions(**options), checkpoint_dir=tmp_path / "state",
            )  # fmt: skip
        assert not worker.started
    assert not (tmp_path / "state").exists()


def test_every_recipe_quantizes_last() -> None:
    """Quantization preserves zeros and clusters, so it is the last stage; the name of a recipe lists its stages."""
    for name, stages in RECIPES.items():
        assert name == "+".join(stages)
        assert "qat" not in stages[:-1]
