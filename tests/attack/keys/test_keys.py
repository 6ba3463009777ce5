"""Keys see what is used: whatever a reader of a model gets to see changes the digest, and nothing else is opened."""

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

import numpy as np
import pytest
from builders import classifier

from edgepack import digests
from edgepack.cache import Cache
from edgepack.cli.main import run
from edgepack.digests import Snapshot, hash_path
from edgepack.errors import ModelFileError, SamplesError
from edgepack.pipeline.step_cache import Codec, StepCache, component_versions
from edgepack.samples.load import InputSpec, load_samples

TEXT: Codec[str] = Codec(lambda text: {"text": text.encode()}, lambda files: files["text"].decode())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder like a SavedModel whose variables are a symbolic link."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "variables.index").write_bytes(b"one")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "model" / "variables").symlink_to(tmp_path / "elsewhere")
    return tmp_path / "model"


def _in_linked_folder(model: Path) -> None:
    (model.parent / "elsewhere" / "variables.index").write_bytes(b"two")


def _other_target(model: Path) -> None:
    (model.parent / "other").mkdir()
    (model.parent / "other" / "variables.index").write_bytes(b"two")
    (model / "variables").unlink()
    (model / "variables").symlink_to(model.parent / "other")


def _below_two_links(model: Path) -> None:
    (model.parent / "elsewhere" / "deep").symlink_to(model.parent / "far")
    (model.parent / "far").mkdir()
    (model.parent / "far" / "shard").write_bytes(b"x")


def _new_empty_folder(model: Path) -> None:
    (model.parent / "elsewhere" / "assets").mkdir()


def _moved_between_names(model: Path) -> None:
    (model / "saved_model.pb").write_bytes(b"grap")
    (model / "h").write_bytes(b"")


def _name_that_is_no_text(model: Path) -> None:
    Path(os.fsdecode(os.fsencode(model) + b"/\xff\xfe")).write_bytes(b"x")


@pytest.mark.parametrize(
    "change",
    [
        _in_linked_folder,
        _other_target,
        _below_two_links,
        _new_empty_folder,
        _moved_between_names,
        _name_that_is_no_text,
    ],
)
def test_what_a_reader_sees_changes_the_digest(model: Path, change: Callable[[Path], None]) -> None:
    """Content, names and structure count, behind any number of links and with any name."""
    snapshot = Snapshot.take(model)
    change(model)
    assert hash_path(model) != snapshot.digest
    assert not snapshot.unchanged()


def test_equal_content_has_an_equal_digest(model: Path, tmp_path: Path) -> None:
    """A link counts by what it leads to: a copy without links has the same digest, in another place as well."""
    (tmp_path / "copy" / "variables").mkdir(parents=True)
    (tmp_path / "copy" / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "copy" / "variables" / "variables.index").write_bytes(b"one")
    assert hash_path(tmp_path / "copy") == hash_path(model)


def test_loops_and_dead_links_end(model: Path) -> None:
    """Links to a parent, to themselves, to each other and to nothing end the walk, and are part of the digest."""
    before = hash_path(model)
    (model / "loop").symlink_to(model)
    (model / "self").symlink_to("self")
    (model.parent / "elsewhere" / "up").symlink_to(model.parent / "elsewhere")
    (model / "nothing").symlink_to("missing")
    looped = hash_path(model)
    assert looped != before
    (model.parent / "elsewhere" / "variables.index").write_bytes(b"two")
    assert hash_path(model) != looped


def test_a_tree_of_links_is_read_once(tmp_path: Path) -> None:
    """Forty levels of two links each are 2^40 paths and forty folders."""
    for level in range(40):
        (tmp_path / f"{level}").mkdir()
        (tmp_path / f"{level}" / "a").symlink_to(tmp_path / f"{level + 1}")
        (tmp_path / f"{level}" / "b").symlink_to(tmp_path / f"{level + 1}")
    (tmp_path / "40").mkdir()
    (tmp_path / "40" / "file").write_bytes(b"1")
    start = time.monotonic()
    before = hash_path(tmp_path / "0")
    assert time.monotonic() - start < 5
    (tmp_path / "40" / "file").write_bytes(b"2")
    assert hash_path(tmp_path / "0") != before


def test_too_many_files_are_refused_before_reading(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to a large disk is refused and not read."""
    monkeypatch.setattr(digests, "MAX_FILES", 100)
    monkeypatch.setattr(digests._Tree, "_file", None)
    for number in range(100):
        (model.parent / "elsewhere" / str(number)).touch()
    with pytest.raises(OSError, match="more than 100 files"):
        hash_path(model)


def _fifo(place: Path) -> None:
    os.mkfifo(place)


def _socket(place: Path) -> None:
    # A relative name, because the names of sockets are short.
    with contextlib.chdir(place.parent), socket.socket(socket.AF_UNIX) as server:
        server.bind(place.name)


def _endless_device(place: Path) -> None:
    place.symlink_to("/dev/zero")


SPECIAL = [_fifo, _socket, _endless_device]


@pytest.mark.parametrize("make", SPECIAL)
@pytest.mark.parametrize("suffix", [".tflite", ".keras", ".h5", ""])
@pytest.mark.parametrize("command", ["inspect", "check", "build"])
def test_special_files_are_no_models(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], None],
    suffix: str,
    command: str,
) -> None:
    """A named pipe, a socket or a device is refused with one error, whatever it is called; nothing blocks."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path / f"m{suffix}")
    options = [] if command == "inspect" else ["--target", "cpu"]
    assert run([command, f"m{suffix}", *options]) == 3
    errors = " ".join(capsys.readouterr().err.split())
    assert "not a regular file" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("make", SPECIAL)
def test_special_files_inside_a_saved_model(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], None],
) -> None:
    """The same inside a folder, and behind a link: refused before any file is read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "saved_model.pb").write_bytes(b"")
    make(tmp_path / "m" / "variables")
    assert run(["check", "m", "--target", "cpu"]) == 3
    assert "not a regular file" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("make", SPECIAL)
@pytest.mark.parametrize("option", ["--samples", "--labels", "--metadata"])
def test_special_files_as_other_inputs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], None],
    option: str,
) -> None:
    """Samples, labels and metadata from such a file are refused as well."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.tflite").write_bytes(classifier())
    make(tmp_path / "given.npz")
    code = run(["build", "m.tflite", "--target", "cpu", option, "given.npz", "-o", "out"])
    errors = " ".join(capsys.readouterr().err.split())
    assert code == 2, errors
    assert "not a regular file" in errors


def test_a_folder_that_is_no_model_is_not_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The format is found first, so that a wrong folder of any size is refused at once."""
    monkeypatch.setattr(digests.Snapshot, "take", None)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "large").write_bytes(b"x")
    assert run(["check", str(tmp_path / "photos"), "--target", "cpu"]) == 3
    assert "saved_model.pb" in " ".join(capsys.readouterr().err.split())


def test_a_model_that_changes_while_it_is_read(tmp_path: Path) -> None:
    """The result of two states is refused and never stored."""
    (tmp_path / "m").write_bytes(b"old")
    steps = StepCache(Cache(tmp_path / "c"))

    def compute() -> str:
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "new").replace(tmp_path / "m")
        return "result"

    with pytest.raises(ModelFileError, match="changed while it was read"):
        steps.memoize("convert", {"model": Snapshot.take(tmp_path / "m")}, TEXT, compute)
    assert not Cache(tmp_path / "c").usage().entries


def test_a_model_that_changes_and_changes_back(tmp_path: Path) -> None:
    """The file is the same as before, but perhaps not the one that was read: the result serves this command only."""
    (tmp_path / "m").write_bytes(b"old")
    steps = StepCache(Cache(tmp_path / "c"))
    inputs = {"model": Snapshot.take(tmp_path / "m")}

    def compute() -> str:
        (tmp_path / "m").write_bytes(b"new")
        (tmp_path / "m").unlink()
        (tmp_path / "m").write_bytes(b"old")
        return "result"

    assert steps.memoize("convert", inputs, TEXT, compute) == "result"
    assert not Cache(tmp_path / "c").usage().entries
    assert StepCache(Cache(tmp_path / "c")).memoize("convert", inputs, TEXT, lambda: "again") == "again"


def test_results_of_a_models_own_code_are_not_stored(tmp_path: Path) -> None:
    """No key covers what code may read: such a result lives as long as the command."""
    steps = StepCache(Cache(tmp_path))
    assert steps.memoize("convert", {}, TEXT, lambda: "one", store=False) == "one"
    assert steps.memoize("convert", {}, TEXT, lambda: "two", store=False) == "one"
    assert StepCache(Cache(tmp_path)).memoize("convert", {}, TEXT, lambda: "two", store=False) == "two"


@pytest.mark.slow
def test_the_code_behind_allow_code_is_run_again(tmp_path: Path) -> None:
    """A changed module that a model imports gives another result, although the model file is the same."""
    (tmp_path / "mine.py").write_text(
        "import keras\nFACTOR = 2.0\n@keras.saving.register_keras_serializable('mine')\n"
        "class Scale(keras.layers.Layer):\n    def call(self, x):\n        return x * FACTOR\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "EDGEPACK_CACHE_DIR": str(tmp_path / "cache"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    make = "import keras, mine; keras.Sequential([keras.Input((4,)), mine.Scale()]).save('m.keras')"
    subprocess.run([sys.executable, "-c", make], env=environment, cwd=tmp_path, check=True)
    inspect = [sys.executable, "-m", "edgepack", "inspect", "m.keras", "--allow-code", "--json"]
    found = []
    for factor in ("2.0", "3.0"):
        text = (tmp_path / "mine.py").read_text().replace("FACTOR = 2.0", f"FACTOR = {factor}")
        (tmp_path / "mine.py").write_text(text)
        done = subprocess.run(inspect, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    assert not Cache(tmp_path / "cache").usage().entries.get("convert")


def test_samples_of_a_function_count_by_type_and_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal bytes that mean other values have another digest."""
    (tmp_path / "yielding.py").write_text(
        "import numpy as np\n"
        "def floats(): return [np.full((2, 2), 1.0, np.float32)] * 2\n"
        "def wholes(): return [x.view(np.int32) for x in floats()]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = InputSpec("x", (1, 2, 2), np.dtype(np.float32))
    digests_ = {load_samples(f"yielding:{name}", [spec]).digest for name in ("floats", "wholes")}
    assert len(digests_) == 2


def test_samples_that_change_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An .npz that is replaced while it is hashed, or between digest and reading, is refused."""
    file, specs = tmp_path / "s.npz", [InputSpec("x", (1, 4), np.dtype(np.float32))]
    np.savez(file, x=np.zeros((2, 4), np.float32))
    samples = load_samples(str(file), specs)
    np.savez(file, x=np.ones((2, 4), np.float32))
    with pytest.raises(SamplesError, match="changed after"):
        samples.sample(0)
    digest = hashlib.file_digest

    def digest_then_replace(stream: BufferedReader, name: str) -> object:
        found = digest(stream, name)
        file.write_bytes(file.read_bytes() + b"!")
        return found

    monkeypatch.setattr(hashlib, "file_digest", digest_then_replace)
    with pytest.raises(SamplesError, match="changed while"):
        load_samples(str(file), specs)


def test_keys_hold_every_package_that_computes() -> None:
    """Keras loads models, Pillow decodes samples, h5py reads weights: another version is another key."""
    assert {"keras", "pillow", "h5py", "numpy", "tensorflow", "flatbuffers"} <= {
        name for name, version in component_versions().items() if version
    }
