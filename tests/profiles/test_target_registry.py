"""The registry: all targets come from entry points; a broken plugin is a warning."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from edgepack.entry_points import index_entry_points
from edgepack.errors import ProfileError, UsageError
from edgepack.profiles import registry
from edgepack.profiles.registry import GROUP, all_targets, get_target, known_ids, load_entry_point, warnings

REPOSITORY = Path(__file__).resolve().parents[2]
BUILTIN = "edgepack.resources:builtin_target_dir"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    registry.refresh()
    yield
    registry.refresh()


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path for plugin packages."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def install(plugins: Path, monkeypatch: pytest.MonkeyPatch, *entries: tuple[str, str]) -> None:
    """Add entry points to the built-in ones."""
    builtin = [EntryPoint(target, BUILTIN, GROUP) for target in ("android-gpu", "cpu", "edgetpu", "hexagon")]
    added = [EntryPoint(name, value, GROUP) for name, value in entries]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: [*builtin, *added])


def package(plugins: Path, name: str, target_id: str, code: str = "") -> None:
    """Write a package with the CPU target's files under another id."""
    folder = plugins / name
    folder.mkdir()
    (folder / "__init__.py").write_text(code)
    text = (REPOSITORY / "targets" / "cpu" / "profile.toml").read_text()
    (folder / "profile.toml").write_text(text.replace('id = "cpu"', f'id = "{target_id}"', 1))
    (folder / "ops.toml").write_text((REPOSITORY / "targets" / "cpu" / "ops.toml").read_text())


def test_the_four_targets() -> None:
    """The built-in targets are found, sorted, without warnings."""
    assert [name for name in all_targets() if name in {"android-gpu", "cpu", "edgetpu", "hexagon"}] == [
        "android-gpu",
        "cpu",
        "edgetpu",
        "hexagon",
    ]
    assert not any("android-gpu" in warning or "'cpu'" in warning for warning in warnings())


def test_built_in_targets_come_through_the_door_of_plugins() -> None:
    """The entry points of pyproject.toml are exactly the folders under targets/."""
    import tomllib

    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    assert set(declared) == {path.parent.name for path in (REPOSITORY / "targets").glob("*/profile.toml")}
    assert set(declared.values()) == {BUILTIN}
    for name, value in declared.items():
        assert load_entry_point(EntryPoint(name, value, GROUP)).id == name


def test_a_package_is_a_target(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third party's package with the two files is a target like the built-in ones."""
    package(plugins, "their_npu", "their-npu")
    install(plugins, monkeypatch, ("their-npu", "their_npu"))
    assert get_target("their-npu").folder == plugins / "their_npu"
    assert "their-npu" in all_targets()
    assert warnings() == ()


def test_a_function_is_a_door(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One function from id to folder can provide several targets."""
    package(plugins, "their_data", "their-npu")
    (plugins / "their_code.py").write_text(
        "from pathlib import Path\ndef folder(target_id):\n    return Path(__file__).parent / 'their_data'\n"
    )
    install(plugins, monkeypatch, ("their-npu", "their_code:folder"))
    assert get_target("their-npu").id == "their-npu"


BROKEN = [
    ("broken_raises", "raise RuntimeError('no licence')", "RuntimeError: no licence"),
    ("broken_exits", "raise SystemExit(3)", "SystemExit"),
    ("broken_import", "import package_that_is_not_there", "ModuleNotFoundError"),
    ("broken_folder", "", "expected a package whose folder contains profile.toml"),
    ("broken_value:answer", "answer = 42", "expected a package or a function that returns a folder, got int"),
    ("broken_return:folder", "def folder(target_id):\n    return 42", "to return a folder, got int"),
    ("broken_call:folder", "def folder():\n    return 42", "TypeError"),
]


@pytest.mark.parametrize(("value", "code", "message"), BROKEN)
def test_a_broken_plugin_is_a_warning(
    plugins: Path, monkeypatch: pytest.MonkeyPatch, value: str, code: str, message: str
) -> None:
    """When loading a plugin fails in any way, the other targets are available and a warning has the reason."""
    folder = plugins / value.partition(":")[0]
    folder.mkdir()
    (folder / "__init__.py").write_text(code)
    install(plugins, monkeypatch, ("broken", value))
    assert list(all_targets()) == ["android-gpu", "cpu", "edgetpu", "hexagon"]
    assert len(warnings()) == 1
    assert "target 'broken'" in warnings()[0]
    assert message in warnings()[0]
    with pytest.raises(ProfileError, match="'broken'"):
        get_target("broken")


def test_faults_of_a_plugins_profile_are_its_warning(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin whose profile has faults is not available, and a warning lists the faults."""
    package(plugins, "faulty_npu", "faulty")
    (plugins / "faulty_npu" / "ops.toml").write_text("x = 1")
    install(plugins, monkeypatch, ("faulty", "faulty_npu"))
    assert "faulty" not in all_targets()
    assert "x: unknown key" in warnings()[0]


def test_the_id_is_the_entry_points_name(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile whose id differs from the name of its entry point is refused."""
    package(plugins, "misnamed_npu", "npu-a")
    install(plugins, monkeypatch, ("npu-b", "misnamed_npu"))
    with pytest.raises(ProfileError, match="id: expected 'npu-b', the name of its entry point, got 'npu-a'"):
        get_target("npu-b")


def test_two_packages_for_one_id() -> None:
    """A built-in target cannot be replaced; of two plugins the first by value is used; both cases are warnings."""
    registered = index_entry_points(
        [
            EntryPoint("cpu", "their_cpu", GROUP),
            EntryPoint("cpu", BUILTIN, GROUP),
            EntryPoint("npu", "b_package", GROUP),
            EntryPoint("npu", "a_package", GROUP),
        ],
        {"cpu": BUILTIN},
        "target",
    )
    assert {name: entry.value for name, entry in registered.entries.items()} == {
        "cpu": BUILTIN,
        "npu": "a_package",
    }
    assert len(registered.warnings) == 2
    assert "'cpu'" in registered.warnings[0]
    assert "their_cpu" in registered.warnings[0]


def test_a_distribution_seen_twice_is_no_conflict() -> None:
    """An entry point that is on the path twice (an editable install and PYTHONPATH) counts once."""
    assert index_entry_points([EntryPoint("cpu", BUILTIN, GROUP)] * 2, {"cpu": BUILTIN}, "target").warnings == ()


def test_without_metadata_the_checkouts_targets_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a checkout that is not installed, the built-in targets are available."""
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: [])
    assert known_ids() == ("android-gpu", "cpu", "edgetpu", "hexagon")
    assert list(all_targets()) == list(known_ids())


def test_an_unknown_target_lists_those_known() -> None:
    """The error for an unknown target suggests the most similar one and lists all."""
    with pytest.raises(UsageError, match="unknown target 'edgtpu', did you mean 'edgetpu'") as caught:
        get_target("edgtpu")
    assert "cpu" in caught.value.hint


def test_importing_the_registry_is_cheap() -> None:
    """The registry loads neither TensorFlow, nor the runtime, nor NumPy, and lists ids without reading a profile."""
    code = (
        "import sys; from edgepack.profiles import registry; registry.known_ids();"
        "heavy = {'numpy', 'tensorflow', 'ai_edge_litert', 'jinja2'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, timeout=60)
