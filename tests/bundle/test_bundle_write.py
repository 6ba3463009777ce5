"""Writing is atomic, whatever the destination has and whenever the writer is killed."""

import os
import pickle
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bundle_specs import tiny_spec

from edgepack.bundle import write as writer
from edgepack.bundle.render import render
from edgepack.bundle.write import is_bundle, write
from edgepack.errors import BundleError

REPOSITORY = Path(__file__).resolve().parents[2]


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file under a folder by relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def one() -> dict[str, bytes]:
    return render(tiny_spec("cpu"))


@pytest.fixture
def other() -> dict[str, bytes]:
    """Another bundle: some files are the same, some differ, some are only in one of them."""
    return render(tiny_spec("edgetpu", notes=("another one",)))


def test_writes_every_file(tmp_path: Path, one: dict[str, bytes]) -> None:
    """The folder has exactly the files, is readable by others, and nothing is left beside it."""
    write(one, tmp_path / "deep" / "er" / "bundle")
    assert tree(tmp_path / "deep" / "er" / "bundle") == one
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["bundle"]
    assert stat.S_IMODE((tmp_path / "deep" / "er" / "bundle").stat().st_mode) == 0o777 & ~writer._umask()


def test_sync_writes_the_same(tmp_path: Path, one: dict[str, bytes]) -> None:
    """Asking for the disk changes nothing of the result."""
    write(one, tmp_path / "bundle", sync=True)
    assert tree(tmp_path / "bundle") == one


@pytest.mark.parametrize("exchange", [True, False])
def test_replaces_a_bundle_only_with_force(
    tmp_path: Path, one: dict[str, bytes], other: dict[str, bytes], exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An existing bundle stays without force and is wholly replaced with it, also where folders cannot be exchanged."""
    if not exchange:
        monkeypatch.setattr(writer, "_exchange", lambda one, other: False)
    dest = tmp_path / "bundle"
    write(one, dest)
    with pytest.raises(BundleError, match="exists") as caught:
        write(other, dest)
    assert "--force" in caught.value.hint and tree(dest) == one
    write(other, dest, force=True)
    assert tree(dest) == other
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize(
    "manifest", [None, "{", "[]", '{"schema": 1}', '{"schema": "1", "edgepack": "x", "files": {}}']
)
def test_never_touches_what_is_no_bundle(
    tmp_path: Path, one: dict[str, bytes], manifest: str | None, force: bool
) -> None:
    """A folder without our manifest is left as it is, even with force."""
    dest = tmp_path / "thesis"
    dest.mkdir()
    (dest / "chapter1.txt").write_text("years of work")
    if manifest is not None:
        (dest / "manifest.json").write_text(manifest)
    before = tree(dest)
    with pytest.raises(BundleError, match="is not a bundle"):
        write(one, dest, force=force)
    assert tree(dest) == before
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_a_file_in_the_way_is_kept(tmp_path: Path, one: dict[str, bytes]) -> None:
    """A file of that name, or as a parent, is an error with a hint."""
    (tmp_path / "bundle").write_text("mine")
    with pytest.raises(BundleError, match="is a file"):
        write(one, tmp_path / "bundle", force=True)
    with pytest.raises(BundleError, match="cannot write") as caught:
        write(one, tmp_path / "bundle" / "inside", force=True)
    assert caught.value.hint and (tmp_path / "bundle").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path: Path, one: dict[str, bytes]) -> None:
    """An empty folder that the user created is replaced."""
    (tmp_path / "bundle").mkdir()
    write(one, tmp_path / "bundle")
    assert tree(tmp_path / "bundle") == one


def test_a_link_to_a_bundle_is_followed(tmp_path: Path, one: dict[str, bytes], other: dict[str, bytes]) -> None:
    """The bundle behind a link is replaced, the link stays."""
    write(one, tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    write(other, tmp_path / "link", force=True)
    assert (tmp_path / "link").is_symlink() and tree(tmp_path / "real") == other


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "", "a\\b", "C:x", "a\0b"])
def test_paths_stay_inside(tmp_path: Path, path: str) -> None:
    """A file whose path leads out of the bundle is refused before anything is written."""
    with pytest.raises(BundleError, match="not a path inside a bundle"):
        write({path: b"x"}, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    os.geteuid() == 0 and not Path("/dev/full").exists(), reason="needs a place that cannot be written to"
)
def test_the_same_files_get_new_times_only(tmp_path: Path, one: dict[str, bytes]) -> None:
    """Nothing is removed and written again where everything is there already; a build tool still sees new files."""
    bundle = tmp_path / "bundle"
    write(one, bundle)
    places = [bundle, *(bundle / path for path in one)]
    for place in places:
        os.utime(place, (1e9, 1e9))
    before = [place.stat().st_ino for place in places]
    write(one, bundle, force=True)
    assert [place.stat().st_ino for place in places] == before
    assert all(place.stat().st_mtime > 1.5e9 for place in places)
    assert tree(bundle) == one and [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("change", ["content", "size", "mode", "missing", "link"])
def test_a_bundle_that_was_changed_is_replaced(tmp_path: Path, one: dict[str, bytes], change: str) -> None:
    """One byte, a right that was taken or given, a file that is gone or became a link: everything is written anew."""
    bundle = tmp_path / "bundle"
    write(one, bundle)
    place = bundle / max(one, key=lambda path: len(one[path]))
    data, mode = place.read_bytes(), place.stat().st_mode
    if change == "content":
        place.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif change == "size":
        place.write_bytes(data + b"\0")
    elif change == "mode":
        place.chmod(mode ^ 0o111)
    else:
        place.unlink()
    if change == "link":
        (tmp_path / "aside").write_bytes(data)
        place.symlink_to(tmp_path / "aside")
    number = bundle.stat().st_ino
    write(one, bundle, force=True)
    assert tree(bundle) == one and bundle.stat().st_ino != number
    assert place.stat().st_mode == mode and not place.is_symlink()


def test_a_full_disk_is_one_clear_error(
    tmp_path: Path, one: dict[str, bytes], other: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When writing fails halfway, the old bundle stays, nothing is left beside it, and there is a hint."""
    write(one, tmp_path / "bundle")
    real, count = writer._write_file, 0

    def refuse(place: Path, data: bytes, sync: bool) -> None:
        nonlocal count
        count += 1
        if count > 5:
            with Path("/dev/full").open("wb", buffering=0) as full:
                full.write(data or b"x")
        real(place, data, sync)

    monkeypatch.setattr(writer, "_write_file", refuse)
    with pytest.raises(BundleError, match="No space left") as caught:
        write(other, tmp_path / "bundle", force=True)
    assert "free some space" in caught.value.hint
    assert tree(tmp_path / "bundle") == one and [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="kills by audit event need fork")
@pytest.mark.parametrize("mode", ["exchange", "fallback"])
@pytest.mark.parametrize("tidy", ["tidy", "untidy"])
def test_killed_before_every_step(
    tmp_path: Path, one: dict[str, bytes], other: dict[str, bytes], mode: str, tidy: str
) -> None:
    """SIGKILL before each single system-level step leaves the old bundle or the new one, and the next write cleans up.

    Where folders cannot be exchanged there is one moment with neither; the next write puts the old one back first.
    """
    for name, files in (("one", one), ("other", other)):
        (tmp_path / name).write_bytes(pickle.dumps(files))
    place = tmp_path / "place"
    program = str(Path(__file__).with_name("kill_writer.py"))
    run = subprocess.run(
        [sys.executable, program, str(tmp_path / "one"), str(tmp_path / "other"), str(place / "bundle"), mode, tidy],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    lines = [line.split() for line in run.stdout.splitlines()]
    assert lines[-1][1:] == ["done", "new"]
    killed = [line for line in lines if line[1] == "killed"]
    # As many kills as there are files, at least: each file is opened once.
    assert len(killed) > len(one)
    found = [line[2] for line in killed]
    recovered = [line[2] for line in lines if line[1] == "recovered"]
    assert set(found) <= {"old", "new", "absent"} and {"old", "new"} <= set(found)
    # The one moment between two renames: never where folders are exchanged, exactly one step where they are not.
    assert found.count("absent") == recovered.count("old") <= (0 if mode == "exchange" else 1)
    if (mode, tidy) == ("fallback", "tidy"):
        assert found.count("absent") == 1
    assert set(recovered) <= {"same", "old"}
    assert [path.name for path in place.iterdir()] == ["bundle"], "left-overs of killed writers were not removed"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs SIGKILL")
def test_killed_at_any_time(tmp_path: Path, one: dict[str, bytes], other: dict[str, bytes]) -> None:
    """SIGKILL between any two instructions, also inside system calls, leaves the old bundle or the new one."""
    for name, files in (("one", one), ("other", other)):
        (tmp_path / name).write_bytes(pickle.dumps(files))
    program = (
        "import pickle, sys, itertools\n"
        "from pathlib import Path\n"
        "from edgepack.bundle.write import write\n"
        "both = [pickle.loads(Path(p).read_bytes()) for p in sys.argv[1:3]]\n"
        "print('ready', flush=True)\n"
        "for files in itertools.cycle(both):\n"
        "    write(files, Path(sys.argv[3]), force=True)\n"
    )
    dest = tmp_path / "place" / "bundle"
    write(one, dest)
    for attempt in range(25):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "one"), str(tmp_path / "other"), str(dest)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
        ) as child:
            assert child.stdout is not None and child.stdout.readline() == b"ready\n"
            time.sleep(0.002 + 0.0037 * attempt)
            child.send_signal(signal.SIGKILL)
        assert tree(dest) in (one, other), f"attempt {attempt}"
    write(one, dest, force=True)
    assert [path.name for path in dest.parent.iterdir()] == ["bundle"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
def test_two_writers_at_once(tmp_path: Path, one: dict[str, bytes], other: dict[str, bytes]) -> None:
    """Writers of one destination do not remove each other's work: both succeed, and one of the two bundles stays."""
    program = (
        "import pickle, sys\n"
        "from pathlib import Path\n"
        "from edgepack.bundle.write import write\n"
        "files = pickle.loads(Path(sys.argv[1]).read_bytes())\n"
        "for _ in range(40): write(files, Path(sys.argv[2]), force=True)\n"
    )
    dest = tmp_path / "place" / "bundle"
    children = []
    for name, files in (("one", one), ("other", other)):
        (tmp_path / name).write_bytes(pickle.dumps(files))
        children.append(
            subprocess.Popen(
                [sys.executable, "-c", program, str(tmp_path / name), str(dest)],
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    errors = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], errors
    assert tree(dest) in (one, other) and is_bundle(dest)
    assert [path.name for path in dest.parent.iterdir()] == ["bundle"]
