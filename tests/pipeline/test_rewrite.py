"""Rewrites in a build: refused ops move onto the accelerator, outputs stay, and every rewrite is reported."""

from pathlib import Path

import numpy as np
import pytest

from edgepack.errors import UsageError
from edgepack.pipeline.build import build
from edgepack.pipeline.check import check
from edgepack.pipeline.options import BuildOptions, TargetOptions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real Keras model with LeakyReLU and nearest upsampling, and samples beside it."""
    folder = tmp_path_factory.mktemp("leaky")
    from edgepack.child import Worker

    with Worker(writable=[folder]) as worker:
        worker.call("test_rewrite:make_model", str(folder / "leaky.keras"))
    np.savez(folder / "samples.npz", x=np.random.default_rng(0).random((60, 16, 16, 3), np.float32))
    return folder / "leaky.keras"


def make_model(path: str) -> None:
    """Runs in a child: Keras stays out of the test's process."""
    import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers
    image = keras.Input((16, 16, 3), name="image")
    x = layers.LeakyReLU(negative_slope=0.1)(layers.Conv2D(8, 3, strides=2)(image))
    x = layers.Conv2D(8, 3, activation="relu")(layers.UpSampling2D(2)(x))
    keras.Model(image, layers.Dense(4, name="scores")(layers.GlobalAveragePooling2D()(x))).save(path)


def options(model: Path, out: Path, repair: str) -> BuildOptions:
    return BuildOptions(out=out, samples=str(model.parent / "samples.npz"), target=TargetOptions(repair=repair))


def test_repairs_bring_the_model_onto_the_edge_tpu(leaky: Path, tmp_path: Path) -> None:
    """Without repairs most ops stay on the host; with them all are mapped, and accuracy does not change."""
    (before,) = build(leaky, ["edgetpu"], options(leaky, tmp_path / "none", "none")).results
    (after,) = build(leaky, ["edgetpu"], options(leaky, tmp_path / "exact", "exact")).results
    assert before.error is None
    assert after.error is None
    assert before.report is not None
    assert after.report is not None
    assert before.repairs == ()
    assert before.report.summary["host"] > 0
    assert after.report.summary["host"] == 0
    assert {rewrite.code for rewrite in after.repairs} >= {"leaky-relu"}
    assert all(rewrite.exact and rewrite.moved_ops > 0 for rewrite in after.repairs)
    assert before.quality is not None
    assert after.quality is not None
    assert after.quality.snr_db is not None
    assert before.quality.snr_db is not None
    assert after.quality.snr_db > before.quality.snr_db - 3


def test_check_says_what_a_build_would_rewrite(leaky: Path) -> None:
    """The check of a float model counts the ops after the rewrites and lists them."""
    (checked,) = check(leaky, ["edgetpu"]).results
    assert checked.report is not None
    assert checked.report.summary["host"] == 0
    assert checked.repairs


def test_unknown_mode(leaky: Path, tmp_path: Path) -> None:
    """--repair has three values."""
    with pytest.raises(UsageError, match="exact, approximate or none"):
        build(leaky, ["edgetpu"], options(leaky, tmp_path, "maybe"))
