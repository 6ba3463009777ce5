"""A killed run at effort high continues where it was, and leaves nothing behind when it is done."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import builders
import numpy as np
import pytest

from edgepack.pipeline.search.post_training import time_left
from edgepack.pipeline.search.ptq_checkpoint import PtqCheckpoint

_NAME = "0123456789" * 4

#: Quantizes with effort high and one sample, and prints progress.
_RUN = """
import sys
from pathlib import Path
import numpy as np
from edgepack.pipeline.options import ModelOptions
from edgepack.pipeline.search.post_training import quantize_with_ptq
from edgepack.pipeline.session import Session
from edgepack.profiles.model import SchemeRule
from edgepack.samples import SampleSet
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    values = dict(np.load(folder / "samples.npz"))
    samples = SampleSet("samples.npz", "digest", values, {name: value.shape for name, value in values.items()},
                        {name: value.dtype for name, value in values.items()})
    with Session(ModelOptions(), lambda text: print(text, flush=True)) as session:
        file, report = quantize_with_ptq(session, (folder / "float.tflite").read_bytes(), SchemeRule("int8", "INT8"),
                                         samples, "high", judged=samples)
    (folder / "int8.tflite").write_bytes(file.tflite)
"""


def test_only_whole_parts_come_back(tmp_path: Path) -> None:
    """Parts with another content, another name or beyond the limit are ignored; removal leaves no folder."""
    folder = tmp_path / ".improve.checkpoint"
    PtqCheckpoint(folder, 1000).save(_NAME, b"learned")
    PtqCheckpoint(folder, 1000).save("../escape", b"elsewhere")
    PtqCheckpoint(folder, 70).save(_NAME[::-1], b"too large")
    (folder / _NAME.replace("0", "a")).write_bytes(b"cut off")
    checkpoint = PtqCheckpoint(folder, 1000)
    assert checkpoint.parts() == {_NAME: b"learned"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name]
    checkpoint.remove()
    assert not folder.exists()
    PtqCheckpoint(None, 1000).save(_NAME, b"nowhere")


def test_the_rest_takes_as_long_as_the_part_that_is_done() -> None:
    """Nothing is said before there is a speed."""
    assert time_left(20.0, 10, 30) == ", about 60 s left"
    assert time_left(600.0, 1, 3) == ", about 30 min left"
    assert time_left(2.0, 10, 30) == time_left(60.0, 0, 30) == time_left(60.0, 30, 0) == ""


@pytest.mark.slow
def test_a_killed_run_continues(tmp_path: Path) -> None:
    """SIGKILL while blocks are learned: the next run begins at the first block that was not finished."""
    tflite = builders.classifier()
    (tmp_path / "float.tflite").write_bytes(tflite)
    np.savez(tmp_path / "samples.npz", **builders.samples(tflite, 1)[0])
    (tmp_path / "run.py").write_text(_RUN)
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path)]
    environment = {**os.environ, "EDGEPACK_CACHE_DIR": str(tmp_path / "cache")}
    reached = -1
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            parts = list(tmp_path.glob("cache/.improve-*.checkpoint/*"))
            if (share := _share(line)) is not None and share > 0 and parts:
                reached = share
                os.kill(process.pid, signal.SIGKILL)
                break
    assert reached > 0, "it ended before it was killed"
    assert not (tmp_path / "int8.tflite").exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    shares = [share for line in done.stdout.splitlines() if (share := _share(line)) is not None]
    assert shares and shares[0] >= reached
    assert (tmp_path / "int8.tflite").exists()
    assert not list(tmp_path.glob("cache/.improve-*"))


def _share(line: str) -> int | None:
    found = re.match(r"\s*reconstruct: (\d+) of 100", line)
    return None if found is None else int(found[1])
