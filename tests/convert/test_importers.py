"""Input formats are plugins: built-in and third-party importers are found by the same code, by a file's content."""

import importlib.metadata
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from plugin_packages import install_package

from edgepack.child import Worker
from edgepack.convert import ConvertOptions, FloatModel, convert
from edgepack.convert.importers import registry
from edgepack.convert.importers.base import Conversion, Importer
from edgepack.convert.importers.registry import (
    BUILTIN,
    GROUP,
    all_importers,
    importer_for,
    is_tflite,
    require_modules,
    require_trainable,
)
from edgepack.errors import ConversionError, ModelFileError, TransformError
from edgepack.runtime import Runner

REPOSITORY = Path(__file__).resolve().parents[2]
PLUGIN = REPOSITORY / "tests" / "plugin" / "edgepack-npzmodel"
EXAMPLE = REPOSITORY / "examples" / "digits" / "digits.keras"
FLOAT = REPOSITORY / "tests" / "data" / "digits_float.tflite"

BROKEN = """
from edgepack.convert.importers.base import Importer
class Failing(Importer):
    id = "failing"
    title = "a failing format"
    suffixes = (".keras", ".bin")
    def recognizes(self, path, head): raise RuntimeError("no license")
    def convert(self, conversion): raise AssertionError
class Incomplete(Importer):
    id = "incomplete"
class Other: pass
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that installs a module with entry points, as pip does."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def run(name: str, module: str | Path, points: dict[str, str]) -> None:
        text = module.read_text() if isinstance(module, Path) else module
        # Other tests install modules of these names as well.
        sys.modules.pop(name.replace("-", "_"), None)
        install_package(site, name, text, GROUP, points)
        registry.refresh()

    yield run
    for name in ("edgepack_npzmodel", "broken_one", "second_one"):
        sys.modules.pop(name, None)
    monkeypatch.undo()
    registry.refresh()


def install_npzmodel(install: Install) -> None:
    declared = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"]
    install("edgepack-npzmodel", PLUGIN / "edgepack_npzmodel.py", declared[GROUP])


def write_npzmodel(path: Path) -> dict[str, np.ndarray]:
    random = np.random.default_rng(4)
    shapes = {"weights_0": (8, 5), "bias_0": (8,), "weights_1": (3, 8), "bias_1": (3,)}
    arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    with path.open("wb") as stream:
        np.savez(stream, **arrays)
    return arrays


def test_builtin_importers_are_declared_entry_points() -> None:
    """pyproject.toml declares the importers that a checkout without metadata finds."""
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    assert declared == BUILTIN


def test_a_checkout_without_metadata_has_the_builtin_importers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without installed metadata, the four built-in importers are found."""
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: ())
    registry.refresh()
    assert [importer.id for importer in all_importers()] == ["h5", "keras", "saved_model", "tflite"]
    assert not registry.warnings()
    registry.refresh()


def test_one_file_adds_a_format(install: Install, tmp_path: Path) -> None:
    """A plugin with one file converts a format that edgepack does not know, through the function that a build calls."""
    path = tmp_path / "net.npzmodel"
    arrays = write_npzmodel(path)
    with pytest.raises(ModelFileError, match=r"without config\.json"):
        importer_for(path)
    install_npzmodel(install)
    with Worker() as worker:
        model = convert(path, worker=worker, options=ConvertOptions())
        assert not worker.started
    assert (model.source_format, model.quantized) == ("npzmodel", False)
    x = np.random.default_rng(5).normal(size=(1, 5)).astype(np.float32)
    hidden = np.maximum(x @ arrays["weights_0"].T + arrays["bias_0"], 0)
    expected = hidden @ arrays["weights_1"].T + arrays["bias_1"]
    np.testing.assert_allclose(Runner(model.tflite).run([x])[0], expected, rtol=1e-5)


def test_a_fingerprint_follows_the_code(install: Install, tmp_path: Path) -> None:
    """The fingerprint for cache keys is the same for the same code, and changes with the plugin's module."""
    write_npzmodel(tmp_path / "net.npzmodel")
    install_npzmodel(install)
    importer = importer_for(tmp_path / "net.npzmodel")
    before = importer.fingerprint
    assert before == importer_for(tmp_path / "net.npzmodel").fingerprint
    with (tmp_path / "site" / "edgepack_npzmodel.py").open("a") as module:
        module.write("# changed\n")
    assert importer.fingerprint != before


def test_the_content_decides_not_the_suffix(install: Install, tmp_path: Path) -> None:
    """A file with another format's suffix is recognized by its content, also when a plugin is installed."""
    install_npzmodel(install)
    write_npzmodel(tmp_path / "net.keras")
    assert importer_for(tmp_path / "net.keras").id == "npzmodel"
    shutil.copy(EXAMPLE, tmp_path / "digits.npzmodel")
    assert importer_for(tmp_path / "digits.npzmodel").id == "keras"
    with pytest.raises(TransformError, match=r"is a dense network \(\.npzmodel\), and only a Keras model"):
        require_trainable(tmp_path / "net.keras")


@pytest.mark.parametrize(
    ("point", "text"),
    [
        ("broken_one:Missing", "AttributeError"),
        ("no_such_module:Thing", "ModuleNotFoundError"),
        ("broken_one:Other", "expected an Importer, got Other"),
        ("broken_one:Incomplete", "abstract"),
        ("broken_one:Failing", "expected the id 'toy'"),
    ],
)
def test_a_broken_plugin_is_a_warning(install: Install, tmp_path: Path, point: str, text: str) -> None:
    """A plugin that cannot be loaded is ignored with a warning; files that no importer recognizes mention it."""
    install("broken-one", BROKEN, {"toy": point})
    (warning,) = registry.warnings()
    assert "importer 'toy' of package broken-one is ignored" in warning
    assert text in warning
    assert importer_for(EXAMPLE).id == "keras"
    (tmp_path / "model.toy").write_text("a model")
    with pytest.raises(ModelFileError) as caught:
        importer_for(tmp_path / "model.toy")
    assert "'toy' of package broken-one" in caught.value.hint


def test_a_plugin_that_fails_on_a_file_does_not_affect_others(install: Install, tmp_path: Path) -> None:
    """An exception while a plugin inspects a file is reported only when no other importer recognizes the file."""
    install("broken-one", BROKEN, {"failing": "broken_one:Failing"})
    assert importer_for(EXAMPLE).id == "keras"
    (tmp_path / "model.bin").write_text("a model")
    with pytest.raises(ModelFileError, match=r"importer 'failing' failed on .*: RuntimeError: no license"):
        importer_for(tmp_path / "model.bin")


def test_two_packages_with_one_id(install: Install) -> None:
    """A plugin cannot replace a built-in importer; of two plugins with one id, the second is ignored with a warning."""
    install_npzmodel(install)
    install("second-one", BROKEN, {"npzmodel": "second_one:Failing", "tflite": "second_one:Failing"})
    assert importer_for(FLOAT).__class__.__name__ == "TfliteImporter"
    assert [warning.split(":")[0] for warning in registry.warnings()] == [
        "two packages provide the importer 'npzmodel'",
        "two packages provide the importer 'tflite'",
    ]


def test_missing_modules_are_named_with_the_extra() -> None:
    """A format whose modules are not installed is refused with the pip requirement that installs them."""

    class Needy(Importer):
        id = "needy"
        title = "a needy format"
        modules = ("no_such_module", "json")
        extra = "edgepack[needy]"

        def recognizes(self, path: Path, head: bytes) -> bool:
            return True

        def convert(self, conversion: Conversion) -> FloatModel:
            raise AssertionError

    with pytest.raises(ConversionError, match="a needy format needs no_such_module, which is not installed") as caught:
        require_modules(Needy())
    assert caught.value.hint == "pip install 'edgepack[needy]'"


def test_facts_of_the_builtin_importers() -> None:
    """Only Keras models can be trained, and only a .tflite needs no TensorFlow."""
    facts = {importer.id: (importer.trainable, importer.needs_tensorflow) for importer in all_importers()}
    assert {name: facts[name] for name in BUILTIN} == {
        "h5": (True, True),
        "keras": (True, True),
        "saved_model": (False, True),
        "tflite": (False, False),
    }


def test_is_tflite(tmp_path: Path) -> None:
    """A .tflite is recognized by content; a damaged file counts by its suffix, a missing file or a folder does not."""
    shutil.copy(FLOAT, tmp_path / "model.bin")
    (tmp_path / "broken.tflite").write_text("no flatbuffer")
    (tmp_path / "folder.tflite").mkdir()
    shutil.copy(EXAMPLE, tmp_path / "archive.tflite")
    names = ("model.bin", "broken.tflite", "folder.tflite", "archive.tflite", "missing.tflite")
    assert [is_tflite(tmp_path / name) for name in names] == [True, True, False, False, False]


def test_require_trainable(tmp_path: Path) -> None:
    """Keras models pass; other formats and folders are refused; unknown files are left to the conversion."""
    require_trainable(EXAMPLE)
    require_trainable(tmp_path / "missing.keras")
    (tmp_path / "text.keras").write_text("no model")
    require_trainable(tmp_path / "text.keras")
    with pytest.raises(TransformError, match=r"is a \.tflite, and only a Keras model can be trained"):
        require_trainable(FLOAT)
    with pytest.raises(TransformError, match="is a folder, and only a Keras model can be trained"):
        require_trainable(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(TransformError, match="is a SavedModel, and only a Keras model can be trained"):
        require_trainable(tmp_path)


def test_finding_an_importer_loads_nothing_heavy() -> None:
    """Recognizing a file imports neither NumPy nor TensorFlow."""
    code = (
        "import sys; from pathlib import Path\n"
        "from edgepack.convert.importers.registry import importer_for, require_trainable\n"
        "assert importer_for(Path(sys.argv[1])).id == 'keras'; require_trainable(Path(sys.argv[1]))\n"
        "loaded = {'numpy', 'tensorflow', 'keras', 'h5py', 'ai_edge_litert', 'flatbuffers'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(EXAMPLE)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
