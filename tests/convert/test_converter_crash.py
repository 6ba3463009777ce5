"""Where TensorFlow ends the process on the frozen model, the documented call converts it in a new one."""

from pathlib import Path

import convert_models
import numpy as np
import pytest

from edgepack.child import Worker
from edgepack.convert import ConvertOptions
from edgepack.convert.importers.base import Conversion
from edgepack.errors import ConversionError
from edgepack.runtime import Runner

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits.keras"


@pytest.mark.slow
def test_a_crash_leads_to_the_documented_call(tmp_path: Path) -> None:
    """The file has the original's outputs, and a note says how it was converted."""
    with Worker(writable=[tmp_path]) as worker:
        result = Conversion(EXAMPLE, "keras", worker, ConvertOptions()).with_tensorflow(convert_models.load_crashing)
    assert "the converter crashed" in result.notes[0]
    assert result.checked is not None and result.checked < 1e-4
    runner = Runner(result.tflite)
    assert np.isfinite(runner.run([np.zeros(runner.inputs[0].shape, np.float32)])[0]).all()


@pytest.mark.slow
def test_a_kill_from_outside_is_an_error(tmp_path: Path) -> None:
    """No other way of converting is tried: the file would depend on who killed the process, and when."""
    with Worker(writable=[tmp_path]) as worker, pytest.raises(ConversionError, match="SIGKILL"):
        Conversion(EXAMPLE, "keras", worker, ConvertOptions()).with_tensorflow(convert_models.load_killed)
