"""The documentation agrees with the code: links, options, generated parts, floors, pictures."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from test_house import FLOORS

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *sorted((REPOSITORY / "examples").rglob("*.md")),
]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)

#: Words that the documentation leaves to others; code spans and code blocks are not looked at.
UNWANTED = re.compile(
    r"\b(mend(ed|s|ing)?|told|wish(es)?|stranger|rungs?|ladder|held against|holds? up|so many|is said|the house"
    r"|asked for|loud|heard)\b",
    re.IGNORECASE,
)


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    names = set()
    for line in FENCE.sub("", page.read_text()).splitlines():
        if line.startswith("#"):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line.lstrip("#").strip())
            name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            count = found.get(name, 0)
            found[name] = count + 1
            names.add(f"{name}-{count}" if count else name)
    return frozenset(names)


@cache
def options() -> dict[str, frozenset[str]]:
    """The options of every command and of every command of a group, by its words after `edgepack`."""
    main = importlib.import_module("edgepack.cli.main")

    def walk(words: str, command: Any) -> Iterator[tuple[str, frozenset[str]]]:
        common = {"-h", "--help"}
        yield words, frozenset({name for p in command.params for name in (*p.opts, *p.secondary_opts)} | common)
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(f"{words} {name}".strip(), inner)

    return dict(walk("", typer.main.get_command(main.command_line())))


def command_lines(text: str) -> Iterator[str]:
    """Every command line of edgepack in the code blocks and code spans of a page, continuation lines joined."""
    blocks = [match[0] for match in FENCE.finditer(text)]
    spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    for line in re.sub(r"\\\n\s*", " ", "\n".join([*blocks, *spans])).splitlines():
        match = re.search(r"(?:^|[\s:])edgepack ([a-z].*)", line.split("  #")[0])
        if match:
            yield match[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_links_point_to_files_and_headings(page: Path) -> None:
    """Every relative link of a page leads to an existing file, and its anchor to a heading there."""
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_examples_name_existing_options(page: Path) -> None:
    """Every command line of edgepack on a page names an existing command and its existing options."""
    unknown = []
    for line in command_lines(page.read_text()):
        words = line.split()
        name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in options()), None)
        if name is None:
            unknown.append(line)
            continue
        named = {match[0] for match in re.finditer(r"(?<![\w-])--?[a-z][a-z-]*", line)}
        unknown += [f"{name}: {flag}" for flag in sorted(named - options()[name])]
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_options_in_the_text_exist(page: Path) -> None:
    """Every `--option` in the text of a page is an option of edgepack, or of a tool that the page names with it."""
    known = frozenset().union(*options().values())
    others = {
        "--self-test",
        "--top",
        "--install",
        "--prefix",
        "--fast",
        "--update-golden",
        "--check",
        "--version",
        "--ablation",
    }
    text = FENCE.sub("", page.read_text())
    named = {
        flag for span in re.findall(r"`([^`\n]+)`", text) for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", span)
    }
    assert named - known - others == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_pages_use_the_words_of_the_field(page: Path) -> None:
    """No page uses the project's former private terms; JSON keys and options in code spans keep their names."""
    text = re.sub(r"`[^`\n]+`", "", FENCE.sub("", page.read_text()))
    assert [match[0] for match in UNWANTED.finditer(text)] == []


def test_python_names_in_the_text_exist() -> None:
    """Every dotted name of edgepack in a code span is a module, an attribute of one, or an entry-point group."""
    groups = {"edgepack.targets", "edgepack.compilers", "edgepack.importers", "edgepack.languages"}
    files = {"edgepack.toml", "edgepack.schema.json", "edgepack.sarif"}
    unknown = set()
    for page in PAGES:
        for name in re.findall(r"`(edgepack(?:\.[A-Za-z_]\w*)+)", FENCE.sub("", page.read_text())):
            module, _, attribute = name.rpartition(".")
            if name in files:
                continue
            try:
                importlib.import_module(name)
            except ImportError:
                if not hasattr(importlib.import_module(module), attribute):
                    unknown.add(name)
    assert unknown - groups == set()


def test_modules_in_the_architecture_exist() -> None:
    """Every module that the architecture page names with its package is a file or a folder."""
    text = FENCE.sub("", (REPOSITORY / "docs" / "architecture.md").read_text())
    packages = "|".join(name for name in FLOORS if not name.startswith("_"))
    named = set(re.findall(rf"`((?:{packages})/[a-z_/0-9]*(?:\.py)?)`", text))
    assert [name for name in sorted(named) if not (REPOSITORY / "edgepack" / name).exists()] == []


def test_contributing_lists_the_floors() -> None:
    """The table in CONTRIBUTING.md has the floors that tests/test_house.py enforces."""
    listed = {}
    for line in (REPOSITORY / "CONTRIBUTING.md").read_text().splitlines():
        cells = line.split("|")
        if len(cells) == 4 and cells[1].strip().isdigit():
            listed.update({name: int(cells[1]) for name in re.findall(r"`([^`]+)`", cells[2])})
    listed["__init__"] = listed.pop("edgepack")
    private = {"_version", "__main__"}
    assert listed == {name: floor for name, floor in FLOORS.items() if name not in private}


def test_architecture_describes_every_package() -> None:
    """Every package and module of the floors has its responsibility on the architecture page."""
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    hidden = {"_version", "__init__", "__main__"}
    assert [name for name in FLOORS if name not in hidden and f"`{name}`" not in page] == []


def test_every_page_is_in_the_index() -> None:
    """docs/README.md leads to every page."""
    index = REPOSITORY / "docs" / "README.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in LINK.findall(index.read_text())}
    assert sorted(set((REPOSITORY / "docs").rglob("*.md")) - linked - {index}) == []


def test_generated_parts_are_up_to_date() -> None:
    """scripts/render_reference_docs --check finds no difference."""
    command = [sys.executable, "scripts/render_reference_docs", "--check"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_picture_of_check_is_up_to_date() -> None:
    """docs/pictures/check.svg shows what `edgepack check` prints today."""
    models = Path(os.environ.get("EDGEPACK_TEST_MODELS", REPOSITORY.parent / "shared" / "models"))
    if not (models / "coral").is_dir():
        pytest.skip("Coral's models are not here: set EDGEPACK_TEST_MODELS")
    command = [sys.executable, "scripts/render_pictures", "--check", "check"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_python_example_of_the_readme_runs(tmp_path: Path) -> None:
    """The five lines of Python in the README build and verify a bundle."""
    text = (REPOSITORY / "README.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr
