"""The runtime library of the Edge TPU is reported with where to get the one that is maintained."""

import subprocess
from pathlib import Path

import pytest

from edgepack.compilers.edgetpu_runtime import find_runtime_library


def test_missing_library_names_the_maintained_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system finds no libedgetpu, the report names the fork; where it finds one, its name and no more."""
    before = find_runtime_library()
    assert before.found or "feranick/libedgetpu" in before.install
    # A library of that name, where the linker looks for one.
    built = ["cc", "-shared", "-o", str(tmp_path / "libedgetpu.so"), "-Wl,-soname,libedgetpu.so.1", "-x", "c", "-"]
    subprocess.run(built, input=b"int edgetpu_nothing;", check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    found = find_runtime_library()
    assert (found.found, found.install, found.problem) == (True, "", "")
    assert "libedgetpu" in found.path
