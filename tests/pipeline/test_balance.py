"""Ranges that differ by orders are separated for real targets, where the check and the proof allow it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgepack.graph import read_model
from edgepack.pipeline.balance import balance_proven
from edgepack.pipeline.options import ModelOptions, TargetOptions
from edgepack.pipeline.rewrite import RewrittenModel, off_accelerator
from edgepack.pipeline.session import Session
from edgepack.profiles.model import SchemeRule
from edgepack.profiles.registry import get_target
from edgepack.repair import range_balance
from edgepack.repair.scale_transfer import ScaleTransfer
from edgepack.samples import SampleSet, load_samples
from edgepack.samples.specs import input_specs

sys.path.insert(0, str(Path(__file__).parent.parent / "repair"))

from test_range_balance import joined

INT8 = SchemeRule("int8", io="INT8", fully_connected="per-tensor")


@pytest.fixture
def session() -> Iterator[Session]:
    with Session(ModelOptions(cache=False)) as session:
        yield session


@pytest.fixture
def samples(tmp_path: Path) -> SampleSet:
    """Samples of `joined(1000)`."""
    random = np.random.default_rng(0)
    arrays = {"x": random.normal(size=(20, 8)), "y": random.normal(size=(20, 8)) * 1000}
    np.savez(tmp_path / "samples.npz", **{name: values.astype(np.float32) for name, values in arrays.items()})
    return load_samples(str(tmp_path / "samples.npz"), input_specs(joined(1000.0)))


@pytest.mark.parametrize("target", ["cpu", "edgetpu"])
def test_every_target_gets_balanced_ranges(target: str, session: Session, samples: SampleSet) -> None:
    """The rewrite is proven and listed, and no op leaves the accelerator."""
    tflite, profile = joined(1000.0), get_target(target)
    result = balance_proven(session, RewrittenModel(tflite), profile, INT8, TargetOptions(), samples)
    assert [rewrite.code for rewrite in result.rewrites] == ["balanced-concatenation"]
    assert 0.0 <= result.difference <= 1e-5 and result.notes == ()
    score = off_accelerator(profile, INT8, TargetOptions())
    assert len(score(read_model(result.tflite))) <= len(read_model(result.tflite).main.ops)
    off = TargetOptions(repair="none")  # type: ignore[arg-type]
    assert balance_proven(session, RewrittenModel(tflite), profile, INT8, off, samples).tflite == tflite


def test_a_rewrite_that_changes_the_outputs_is_left_out(
    session: Session, samples: SampleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the weights that take the factors back, the outputs differ: the file stays, and a note tells."""
    monkeypatch.setattr(range_balance, "plan_transfer", lambda *args: ScaleTransfer())
    tflite = joined(1000.0)
    result = balance_proven(session, RewrittenModel(tflite), get_target("edgetpu"), INT8, TargetOptions(), samples)
    assert (result.tflite, result.rewrites) == (tflite, ())
    assert result.notes == ("the rewrite balanced-concatenation is left out: it changes the model's outputs",)
