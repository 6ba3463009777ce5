"""Keras's own architectures, float and int8, are checked against every target without a crash, in a second."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgepack.compat import check
from edgepack.graph import Model, read_model
from edgepack.pipeline.options import ModelOptions, TargetOptions
from edgepack.pipeline.rewrite import rewrite_unproven
from edgepack.pipeline.search.post_training import calibrate, quantize_calibrated
from edgepack.pipeline.session import Session
from edgepack.profiles.model import SchemeRule
from edgepack.profiles.registry import all_targets, get_target
from edgepack.quantize.preview import preview
from edgepack.quantize.select import select
from edgepack.schemes import Needs

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parent.parent / "compat" / "keras_applications.py"
NAMES = [
    "ConvNeXtTiny", "EfficientNetB0", "InceptionV3", "MobileNet", "MobileNetV2", "MobileNetV3Large",
    "MobileNetV3Small", "ResNet50V2", "VGG16", "Xception",
]  # fmt: skip
INT8 = SchemeRule("int8", io="INT8", fully_connected="per-tensor")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with one float file per architecture."""
    folder = tmp_path_factory.mktemp("architectures")
    process = subprocess.run([sys.executable, SCRIPT, folder, *NAMES], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session(ModelOptions(cache=False)) as session:
        yield session


def check_everywhere(model: Model) -> None:
    """Preview and check for each target and variant; every op is placed, with reasons when the target refuses it."""
    for profile in all_targets().values():
        for variant in profile.variants:
            rules = variant.schemes or profile.schemes
            rule = select(replace(profile, schemes=rules), {Needs.NOTHING, Needs.SAMPLES}, "auto").rule
            start = time.process_time()
            report = check(preview(model, rule), profile, variant=variant.id)
            assert time.process_time() - start < 3, (profile.id, variant.id)
            assert report.ops
            assert all(op.reasons or op.placement == "accelerator" for op in report.ops)


@pytest.mark.parametrize("name", NAMES)
def test_float_is_checked_everywhere(folder: Path, name: str) -> None:
    """The float file is planned and checked for every target, and a repair for the Edge TPU never makes it worse."""
    tflite = (folder / f"{name}.tflite").read_bytes()
    check_everywhere(read_model(tflite))
    edgetpu = get_target("edgetpu")
    before = check(preview(read_model(tflite), INT8), edgetpu).summary
    repaired = rewrite_unproven(tflite, edgetpu, INT8, TargetOptions(), mode="approximate")
    after = check(preview(read_model(repaired.tflite), INT8), edgetpu).summary
    # Arithmetic that is folded into layers is gone without having moved.
    assert before["host"] - after["host"] >= repaired.moved_ops >= 0


@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV2", "MobileNetV3Small"])
def test_int8_is_placed_as_planned(folder: Path, session: Session, name: str) -> None:
    """The int8 file that quantization really makes is checked everywhere, and placed on the Edge TPU as planned."""
    tflite = (folder / f"{name}.tflite").read_bytes()
    quantized = quantize_calibrated(session, tflite, INT8, calibrate(session, tflite, 2), "").tflite
    check_everywhere(read_model(quantized))
    edgetpu = get_target("edgetpu")
    planned, real = check(preview(read_model(tflite), INT8), edgetpu), check(read_model(quantized), edgetpu)
    assert [(f.op, f.placement) for f in real.ops] == [(f.op, f.placement) for f in planned.ops]
