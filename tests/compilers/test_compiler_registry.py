"""Compilers come from entry points, built-in or not, and a broken plugin affects no other compiler."""

from pathlib import Path

import pytest
from plugin_packages import install_package

from edgepack.compilers import all_compilers, compiler_ids, get_compiler
from edgepack.compilers.edgetpu import EdgeTpuCompiler
from edgepack.compilers.qnn import QnnAotCompiler
from edgepack.errors import ToolMissingError, UsageError

GOOD = """
from edgepack.compilers import CompileResult
class Good:
    id = "good"
    def find(self): return None
    def compile(self, request, timeout=60): return CompileResult("compiled", "Good")
class Nameless:
    def find(self): return None
    def compile(self, request, timeout=60): return None
class Mute:
    id = "mute"
"""


def plugin(folder: Path, name: str, module: str, points: dict[str, str]) -> None:
    """Lay out what `pip install` would: a module and its distribution's metadata."""
    install_package(folder, name, module, "edgepack.compilers", points)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_builtin_compilers_are_there() -> None:
    """The two built-in compilers are found, installed or from a bare checkout."""
    assert {"edgetpu", "qnn"} <= set(compiler_ids())
    assert isinstance(get_compiler("edgetpu"), EdgeTpuCompiler)
    assert isinstance(get_compiler("qnn"), QnnAotCompiler)


def test_unknown_compiler_lists_those_there_are() -> None:
    """A name that no package provides is a usage error that lists the installed compilers."""
    with pytest.raises(UsageError) as caught:
        get_compiler("edgetpuu")
    assert "edgetpu, qnn" in caught.value.hint


def test_plugin_comes_through_the_same_door(site: Path) -> None:
    """A third party's compiler is found by its entry point; attributes that it does not define have defaults."""
    plugin(site, "good-one", GOOD, {"good": "good_one:Good"})
    assert "good" in compiler_ids()
    assert type(get_compiler("good")).__name__ == "Good"
    assert not get_compiler("good").supports_segments
    assert set(all_compilers()) >= {"edgetpu", "good", "qnn"}


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ("broken_one:Missing", "AttributeError"),
        ("no_such_module:Thing", "ModuleNotFoundError"),
        ("broken_one:Mute", "no method 'find'"),
        ("broken_one:Nameless", "expected 'mute'"),
    ],
)
def test_broken_plugin_is_a_warning_and_harms_nobody(site: Path, point: str, words: str) -> None:
    """A plugin that cannot be loaded is skipped with its cause; requested by name it is a missing tool."""
    plugin(site, "broken-one", GOOD, {"mute": point})
    with pytest.warns(UserWarning, match="'mute' of the package 'broken-one' is skipped") as warned:
        compilers = all_compilers()
    assert words in str(warned[0].message)
    assert "mute" not in compilers
    assert {"edgetpu", "qnn"} <= set(compilers)
    with pytest.raises(ToolMissingError) as caught:
        get_compiler("mute")
    assert words in caught.value.message
    assert "broken-one" in caught.value.hint
    assert isinstance(get_compiler("edgetpu"), EdgeTpuCompiler)


def test_nobody_takes_a_name_that_is_taken(site: Path) -> None:
    """A plugin cannot silently replace a built-in compiler."""
    plugin(site, "thief-one", GOOD, {"edgetpu": "thief_one:Good"})
    with pytest.warns(UserWarning, match="two packages provide the compiler 'edgetpu'"):
        assert isinstance(get_compiler("edgetpu"), EdgeTpuCompiler)
