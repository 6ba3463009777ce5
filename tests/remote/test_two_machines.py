"""A model that one machine built is built on another from the shared cache alone."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_second_machine_computes_nothing(bucket: Callable[[str], str], tmp_path: Path) -> None:
    """Its bundles have the same bytes, no step is stored that was not there, and TensorFlow cannot even be imported."""
    refused = tmp_path / "refused"
    for package in ("tensorflow", "tf_keras", "keras"):
        (refused / package).mkdir(parents=True)
        (refused / package / "__init__.py").write_text("raise ImportError('refused by the test')\n")
    url = bucket("s3")

    def build(name: str, path: str, cache: str) -> dict:
        command = [
            sys.executable, "-m", "edgepack", "build", "examples/digits/digits.keras", "-t", "cpu",
            "--samples", "examples/digits/samples.npz", "--eval", "examples/digits/eval.npz",
            "-o", str(tmp_path / name), "--cache", cache, "--json",
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": path, "EDGEPACK_CACHE_DIR": str(tmp_path / f"cache-{name}")}
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
        assert "shared cache" not in done.stderr, done.stderr
        return json.loads(done.stdout)

    def contents(name: str) -> dict[str, bytes]:
        root = tmp_path / name
        return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}

    def keys(name: str) -> list[str]:
        return sorted(p.name for p in (tmp_path / f"cache-{name}").iterdir() if not p.name.startswith("."))

    assert build("one", str(REPOSITORY), url)["ok"]
    without = os.pathsep.join([str(refused), str(REPOSITORY)])
    assert build("two", without, url)["ok"]
    assert contents("one") == contents("two") != {}
    assert {"convert", "quantize", "measure", "golden", "render"} <= {key.rpartition("-")[0] for key in keys("two")}
    assert set(keys("two")) <= set(keys("one"))
    # The test itself works: without the shared cache, this machine cannot convert.
    assert not build("three", without, "off")["ok"]
