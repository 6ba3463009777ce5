"""A bundle of a model with state says so, its loaders reset the state, and its self-tests pass."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bundle_specs import spec_of, tiny_spec, write_tree
from state_models import MODELS

from edgepack.bundle.manifest import to_json_bytes
from edgepack.bundle.render import render
from edgepack.bundle.verify import verify

PROGRAM = """
import numpy as np
from model import INPUTS, Model
x = np.random.default_rng(0).normal(size=INPUTS[0].shape)
with Model() as model:
    first = model.run(x).y.copy()
    second = model.run(x).y.copy()
    model.reset()
    assert np.array_equal(model.run(x).y, first)
    assert not np.array_equal(second, first)
"""


@pytest.mark.parametrize("kind", MODELS)
def test_the_python_loader_resets_the_state(kind: str, tmp_path: Path) -> None:
    """The state lives on from run to run until `reset()`; self-test and `verify` of the fresh bundle pass."""
    bundle = write_tree(render(spec_of(MODELS[kind](), "model", "cpu")), tmp_path / "bundle")
    package = bundle / "linux" / "src"
    for arguments in (["-c", PROGRAM], ["-m", "model", "--self-test"]):
        command = [sys.executable, "-B", *arguments]
        done = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    assert verify(bundle).problems == ()


@pytest.mark.parametrize(
    ("target", "language", "example"),
    [
        ("cpu", "kotlin", "    model.reset()\n    for"),
        ("cpu", "kotlin", "  model.reset();\n  for (const auto"),
        ("android-gpu", "kotlin", "    model.reset()\n    for ("),
        ("android-gpu", "java", "    model.reset();\n    for (Step"),
    ],
)
def test_the_readme_shows_how_to_reset(target: str, language: str, example: str) -> None:
    """README and API documentation of a model with state show a stream; those of other models do not."""
    for state in ("", "variable-tensors", "resource-variables"):
        files = render(tiny_spec(target, language=language, state=state))
        readme = files["README.md"].decode()
        manifest = json.loads(files["manifest.json"])
        documented = [path for path, data in files.items() if b"does not\n" in data or b"does not continue" in data]
        assert (example in readme) == bool(state)
        assert ("keeps its state from run to run" in readme) == bool(state)
        assert manifest["model"].get("stateful", False) == bool(state)
        assert (len(documented) > 1) == bool(state)


def test_verify_compares_the_claim_with_the_file(tmp_path: Path) -> None:
    """A manifest that hides the state of its model is a problem."""
    spec = spec_of(MODELS["variable-tensors"](), "model", "cpu")
    bundle = write_tree(render(spec), tmp_path / "bundle")
    assert verify(bundle).problems == ()
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    assert manifest["model"]["stateful"] is True
    manifest["model"]["stateful"] = False
    (bundle / "manifest.json").write_bytes(to_json_bytes(manifest))
    assert "keeps a state" in verify(bundle).problems[0].what
