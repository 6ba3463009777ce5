"""Loader languages: built-in ones and those of other packages come through one registry."""

import ast
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bundle_specs import TEMPLATES, tiny_spec

from edgepack.bundle.context import class_name, make_context
from edgepack.bundle.languages import registry
from edgepack.bundle.languages.base import LoaderLanguage
from edgepack.bundle.languages.registry import BUILTIN, GROUP, all_languages, languages_for
from edgepack.bundle.render import render
from edgepack.choices import Language, Platform
from edgepack.errors import BundleError

ROOT = Path(__file__).resolve().parents[2]
LUA = ROOT / "tests" / "plugin" / "edgepack-lua"
BROKEN = """
from pathlib import Path
from edgepack.bundle.languages.base import LoaderLanguage
from edgepack.choices import Platform
class Other(LoaderLanguage):
    id = "other"
    title = "Other"
    platforms = (Platform.LINUX,)
class Homeless(Other):
    id = "lua"
class Unplaced(LoaderLanguage):
    id = "lua"
    title = "Lua"
    platforms = ()
class Plain:
    id = "lua"
class Taken(Other):
    id = "python"
class Rival(Other):
    id = "lua"
    folder = Path(__file__).parent / "rival"
class App(Other):
    id = "lua"
    platforms = (Platform.ANDROID,)
    folder = Path(__file__).parent / "app"
class Failing(Rival):
    def context(self, spec, inputs, outputs):
        raise ValueError("no such model")
"""


@pytest.fixture(autouse=True)
def _fresh_registry() -> Iterator[None]:
    """Look for languages again before and after each test."""
    registry.refresh()
    yield
    registry.refresh()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, dict[str, str]], None]:
    """Return a function that lays out what pip installs: a package on the import path with its metadata."""

    def lay_out(package: Path, points: dict[str, str]) -> None:
        info = tmp_path / "site" / "edgepack_lua-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgepack-lua\nVersion: 1.0\n")
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
        monkeypatch.syspath_prepend(str(package))
        monkeypatch.syspath_prepend(str(info.parent))
        registry.refresh()

    return lay_out


@pytest.fixture
def broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, install: Callable[[Path, dict[str, str]], None]
) -> Callable[[str, str], None]:
    """Return a function that installs one of the classes of `BROKEN` as a language."""

    def one(name: str, point: str) -> None:
        folder = tmp_path / "package"
        for templates in ("rival/linux", "app/android"):
            (folder / templates).mkdir(parents=True)
        (folder / "rival" / "linux" / "pyproject.toml").write_text("")
        (folder / "app" / "android" / "app.txt.j2").write_text("{{ title }} in {{ language }}")
        (folder / "broken_language.py").write_text(BROKEN)
        # Another test may have imported the module from its own folder.
        monkeypatch.delitem(sys.modules, "broken_language", raising=False)
        install(folder, {name: point})

    return one


def test_builtin_languages_are_declared_once_as_others_are() -> None:
    """The entry points in pyproject.toml are the table for a bare checkout, and each class fits its name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][GROUP] == BUILTIN
    assert list(all_languages())[: len(BUILTIN)] == list(BUILTIN)
    assert {language.id for language in languages_for(Platform.ANDROID)} >= set(Language)
    for language in all_languages().values():
        assert isinstance(language, LoaderLanguage) and language.folder.is_dir()


def test_a_language_is_one_file_and_a_template_folder(install: Callable[[Path, dict[str, str]], None]) -> None:
    """A package's loader is rendered into every Linux bundle and its README; nothing else changes."""
    before = {target: render(tiny_spec(target)) for target in TEMPLATES}
    install(LUA, tomllib.loads((LUA / "pyproject.toml").read_text())["project"]["entry-points"][GROUP])
    for target, rule in TEMPLATES.items():
        files = render(tiny_spec(target))
        added = set(files) - set(before[target])
        assert added == ({"linux/lua/tiny_model_2_0.lua"} if rule.template == "linux" else set())
        changed = {path for path, data in before[target].items() if files[path] != data}
        assert changed == ({"README.md", "manifest.json"} if added else set())
    text = render(tiny_spec("cpu"))["linux/lua/tiny_model_2_0.lua"].decode()
    assert text.count("elements = ") == 5 and "model.inputs.class =" in text
    assert "require(" in render(tiny_spec("cpu"))["README.md"].decode()


def test_an_app_language_of_another_package_is_chosen_by_its_id(broken: Callable[[str, str], None]) -> None:
    """An Android bundle carries the loader of its language only, whichever package brings it."""
    broken("lua", "broken_language:App")
    files = render(tiny_spec("android-gpu", language="lua"))
    assert files["android/app.txt"] == b"Tiny Model 2.0 in lua"
    assert not any(path.endswith((".kt", ".java")) for path in files)
    assert "android/app.txt" not in render(tiny_spec("android-gpu"))
    with pytest.raises(BundleError, match="language: expected kotlin or java or lua, got 'swift'"):
        render(tiny_spec("cpu", language="swift"))


@pytest.mark.parametrize(
    ("point", "says"),
    [
        ("no_such_module:Lua", "ModuleNotFoundError"),
        ("broken_language:Missing", "AttributeError"),
        ("broken_language:Other", "id: expected 'lua', the name of its entry point, got 'other'"),
        ("broken_language:Plain", "expected a subclass of"),
        ("broken_language:Unplaced", "platforms: expected a value"),
        ("broken_language:Homeless", "folder: expected a folder with templates"),
    ],
)
def test_a_broken_plugin_is_a_warning(broken: Callable[[str, str], None], point: str, says: str) -> None:
    """A language that does not load is ignored with its package and cause; bundles are built without it."""
    broken("lua", point)
    with pytest.warns(
        UserWarning, match="the loader language 'lua' of the package 'edgepack-lua' is ignored"
    ) as caught:
        languages = all_languages()
    assert says in str(caught[0].message)
    assert list(languages) == list(BUILTIN)
    assert "README.md" in render(tiny_spec("cpu"))


def test_a_builtin_language_cannot_be_replaced(broken: Callable[[str, str], None]) -> None:
    """Of two packages with one id the built-in one is used, and a warning names the other."""
    broken("python", "broken_language:Taken")
    with pytest.warns(UserWarning, match="two packages provide the loader language 'python'"):
        assert type(all_languages()["python"]).__module__ == "edgepack.bundle.languages.python"


def test_two_languages_cannot_write_one_file(broken: Callable[[str, str], None]) -> None:
    """A template that would overwrite another language's file is an error that names both."""
    broken("lua", "broken_language:Rival")
    with pytest.raises(BundleError, match=r"two templates write 'linux/pyproject\.toml'") as caught:
        render(tiny_spec("cpu"))
    assert "'lua'" in caught.value.hint


def test_a_language_that_fails_on_a_model_is_named(broken: Callable[[str, str], None]) -> None:
    """An exception in a language's own code becomes an error that says which language failed."""
    broken("lua", "broken_language:Failing")
    with pytest.raises(BundleError, match="the loader language 'lua' failed: ValueError: no such model"):
        render(tiny_spec("cpu"))


@pytest.mark.parametrize("name", ["None", "String", "Tensor", "Any", "class", "val"])
def test_class_names_shadow_nothing_in_any_language(name: str) -> None:
    """A model named like a keyword or like a class that a loader uses gets a class of another name."""
    assert class_name(name) == f"{name[0].upper()}{name[1:]}Model"
    assert ast.parse(f"class {class_name(name)}: pass")


def test_templates_of_a_target_see_every_builtin_language() -> None:
    """The documented variables are there for every target, whatever loader the target's own template has."""
    context = make_context(tiny_spec("cpu"))
    assert {"python_package", "kotlin_package", "c_name", "class_name", "gradle_module"} <= set(context)
    first = context["inputs"][0]
    assert (first.python, first.kotlin, first.kotlin_type, first.java_type, first.getter) == (
        ("my_image", "myImage", "FloatArray", "float[]", "getMyImage")
    )
