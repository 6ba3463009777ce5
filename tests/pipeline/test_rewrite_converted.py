"""Rewrites of files from the real converter, compared with the files that quantization really produces."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepack.compat import check
from edgepack.graph import read_model
from edgepack.pipeline.options import ModelOptions, TargetOptions
from edgepack.pipeline.rewrite import off_accelerator, rewrite_proven
from edgepack.pipeline.search.post_training import calibrate, quantize_calibrated
from edgepack.pipeline.session import Session
from edgepack.profiles.registry import get_target

pytestmark = pytest.mark.slow
REPAIR = Path(__file__).parent.parent / "repair"

#: model: ops off the accelerator before the repair, and codes, by target and variant. All are 0 after it.
EXPECTED = {
    ("edgetpu", ""): {
        "grouped": (3, "grouped-convolution"),
        "upsampling": (7, "nearest-upsampling"),
        "leaky": (2, "leaky-relu"),
        "padded": (2, "padv2-shifted"),
        "split": (3, "split-v-equal"),
        "unequal": (3, "split-v-slices"),
        "shuffle": (4, "flat-transpose"),
        "pixels": (5, "flat-transpose"),
        "unstack": (3, "unpack"),
        "square": (4, "plain-arithmetic"),
        "abs": (2, "plain-arithmetic"),
        "tile": (3, "tile"),
    },
    ("android-gpu", "legacy"): {
        "upsampling": (6, "nearest-upsampling"),
        "shuffle": (4, "flat-transpose"),
        "pixels": (4, "block-shuffle"),
    },
    ("android-gpu", "ml-drift"): {"pixels": (4, "block-shuffle")},
    ("hexagon", "htp"): {"square": (3, "plain-arithmetic")},
}
CASES = [(target, variant, name) for (target, variant), models in EXPECTED.items() for name in models]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with one float file per layer."""
    folder = tmp_path_factory.mktemp("layers")
    process = subprocess.run(
        [sys.executable, REPAIR / "converter_repairs.py", folder], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session(ModelOptions(cache=False)) as session:
        yield session


@pytest.mark.parametrize(("target", "variant", "name"), CASES)
def test_every_op_moves(converted: Path, session: Session, target: str, variant: str, name: str) -> None:
    """A layer as TensorFlow writes it is refused before and accepted whole after, proven within 1e-5 on samples."""
    before, code = EXPECTED[target, variant][name]
    profile = get_target(target)
    target_options = TargetOptions(variant=variant)
    rule = profile.schemes[0]
    tflite = (converted / f"{name}.tflite").read_bytes()
    score = off_accelerator(profile, rule, target_options)
    assert len(score(read_model(tflite))) == before
    proven = rewrite_proven(session, tflite, profile, rule, target_options)
    assert [rewrite.code for rewrite in proven.rewrites] == [code]
    assert (proven.moved_ops, score(read_model(proven.tflite))) == (before, frozenset())
    assert proven.difference <= 1e-5


@pytest.mark.parametrize("name", ["grouped", "upsampling", "padded", "unequal", "shuffle", "pixels", "unstack", "tile"])
def test_the_quantized_file_is_taken_as_planned(converted: Path, session: Session, name: str) -> None:
    """The quantized form of the rewritten model runs whole on the Edge TPU, by the check of the real file."""
    profile = get_target("edgetpu")
    rule = profile.schemes[0]
    tflite = (converted / f"{name}.tflite").read_bytes()
    rewritten = rewrite_proven(session, tflite, profile, rule, TargetOptions()).tflite
    quantized = quantize_calibrated(session, rewritten, rule, calibrate(session, rewritten, 10), "").tflite
    summary = check(read_model(quantized), profile).summary
    assert (summary["host"], summary["partitions"]) == (0, 1), [
        (f.op, f.reasons) for f in check(read_model(quantized), profile).ops if f.reasons
    ]
