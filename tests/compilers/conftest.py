"""The stand-in for the Edge TPU compiler."""

from pathlib import Path

import edgetpu_standin
import pytest


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set EDGEPACK_EDGETPU_COMPILER to the stand-in; return the file with one line per compilation."""
    state = tmp_path / "runs"
    monkeypatch.setenv("EDGEPACK_EDGETPU_COMPILER", str(edgetpu_standin.install(tmp_path)))
    monkeypatch.setenv("EDGETPU_STANDIN_STATE", str(state))
    monkeypatch.setenv("EDGEPACK_WRITABLE", str(tmp_path))
    for name in ("EDGETPU_STANDIN_SCENARIO", "EDGETPU_STANDIN_EXIT"):
        monkeypatch.delenv(name, raising=False)
    return state


@pytest.fixture
def small(shared_models: Path) -> bytes:
    """A model that is not one of Coral's: the keyword spotter, 13 ops."""
    return (shared_models / "mlperf-tiny" / "kws_reference_int8.tflite").read_bytes()
