"""scripts/bench peers names the tools that it leaves out, and its configurations belong to tools that it knows."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def _run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "scripts" / "bench_peers.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_folder_without_models_is_refused_with_what_to_do(tmp_path: Path) -> None:
    done = _run("--work", tmp_path)
    assert done.returncode == 1
    assert "run scripts/bench quality --work" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_tool_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "scripts")
    import bench_peers

    monkeypatch.setattr(
        bench_peers, "run_peer", lambda *_: {"nncf": "3", "onnx": "1", "tf2onnx": "1", "tensorflow": "2"}
    )
    chosen = bench_peers.chosen("python", None)
    assert chosen and all(name.startswith("nncf") for name in chosen)
    printed = capsys.readouterr().out
    assert "skipped: aimet (aimet-onnx is not installed" in printed
    assert "skipped: onnxruntime" in printed


def test_samples_are_read_by_position_in_whole_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "scripts")
    import peer_quantizers

    first, second = np.arange(10.0).reshape(5, 2), np.arange(5.0).reshape(5, 1)
    np.savez(tmp_path / "cal.npz", **{"0": first, "1": second})
    batches = list(peer_quantizers.feeds(tmp_path / "cal.npz", ["a", "b"], 2))
    assert len(batches) == 2
    assert np.array_equal(batches[1]["a"], first[2:4])
    assert np.array_equal(batches[1]["b"], second[2:4])
