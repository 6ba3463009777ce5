"""The rules of the architecture: floors, what is imported where and when, length of files, exit codes."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepack import errors

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "edgepack"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = {
    "_version": 0, "interrupts": 0, "errors": 0, "schemes": 0, "findings": 0, "choices": 0, "latency_estimate": 0,
    "resources": 1, "tools": 1, "child": 1, "cache": 1, "cache_entries": 1, "digests": 1, "text": 1, "files": 1,
    "documents": 1, "untrusted": 1, "job": 1, "confinement": 1, "import_path": 1, "limits": 1, "private_folder": 1,
    "messages": 1, "entry_points": 1, "graph": 1, "lean_import": 1, "recent": 1,
    "bounded": 1, "cache_claims": 1, "cache_packing": 1, "redaction": 1, "remote_cache": 1, "remote_stores": 1,
    "shared_keys": 1, "distribution": 1,
    "profiles": 2, "samples": 2, "runtime": 2, "tasks": 2,
    "convert": 3, "training": 3, "quantize": 3, "repair": 3, "compat": 3, "compilers": 3, "bundle": 3,
    "pipeline": 4,
    "project": 5, "delivery": 5,
    "api": 6,
    "cli": 7, "__init__": 7, "__main__": 7,
}  # fmt: skip
HEAVY = ("tensorflow", "tf_keras", "keras", "tensorflow_model_optimization")
LAZY = (
    *HEAVY,
    "ai_edge_litert",
    "ai_edge_quantizer",
    "jinja2",
    "PIL",
    "pycocotools",
    "scipy",
    "cyclonedx",
    "model_signing",
    "cryptography",
    "fsspec",
    "s3fs",
    "gcsfs",
    "adlfs",
    "oras",
    "requests",
)


def package_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (module, whether at the top of the file) for every import; imports for type checkers do not count."""
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    inside: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped.update(ast.walk(node))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inside.update(ast.walk(node))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node not in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names = (
                [f"edgepack.{alias.name}" for alias in node.names] if node.module == "edgepack" else [str(node.module)]
            )
            yield from ((name, node not in inside) for name in names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_from_lower_floors(path: Path) -> None:
    """A module imports only from lower floors; packages on floor 3 never import each other."""
    own = package_of(path)
    for module, _ in imports(path):
        if module.split(".")[0] != "edgepack":
            continue
        parts = module.split(".")
        theirs = parts[1] if len(parts) > 1 else "__init__"
        if theirs == own or FLOORS[own] == 7:
            continue
        assert FLOORS[theirs] < FLOORS[own] or (FLOORS[own] < 3 and FLOORS[theirs] == FLOORS[own]), (
            f"{path.name} (floor {FLOORS[own]}) imports {module} (floor {FLOORS[theirs]})"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_imports_stand_where_they_may(path: Path) -> None:
    """TensorFlow is imported in convert/, training/, untrusted/ and the lowering; heavy imports are in functions."""
    for module, at_top in imports(path):
        root = module.split(".")[0]
        if root in HEAVY:
            allowed = package_of(path) in {"convert", "training", "untrusted"} or path.match("ptq/lowering/lazy.py")
            assert allowed, f"{path.name} imports {module}"
        if root in LAZY:
            assert not at_top, f"{path.name} imports {module} at its top"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_is_printed_outside_the_command_line(path: Path) -> None:
    """Only cli/ prints: the library gives values back."""
    if package_of(path) == "cli":
        return
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    assert not [n.lineno for n in calls if isinstance(n.func, ast.Name) and n.func.id == "print"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_one_room_long(path: Path) -> None:
    """A file stays within about 400 lines."""
    assert len(path.read_text().splitlines()) <= 420


def test_every_exit_code_has_one_owner() -> None:
    """Each direct child of EdgepackError owns one exit code, and every kind is used once."""
    children = errors.EdgepackError.__subclasses__()
    assert sorted(child.exit_code for child in children) == [2, 3, 4, 5, 6, 7, 8]

    def tree(kind: type[errors.EdgepackError]) -> list[type[errors.EdgepackError]]:
        return [kind, *(leaf for child in kind.__subclasses__() for leaf in tree(child))]

    mine = [kind for kind in tree(errors.EdgepackError) if kind.__module__.startswith("edgepack.")]
    kinds = [kind.kind for kind in mine]
    assert len(kinds) == len(set(kinds))
    for child in children:
        assert {kind.exit_code for kind in tree(child)} == {child.exit_code}


def test_exit_codes_are_the_documented_ones() -> None:
    """docs/reference/exit-codes.md lists exactly the codes that the error tree has."""
    text = (REPOSITORY / "docs" / "reference" / "exit-codes.md").read_text()
    rows = [
        line.split("|") for line in text.splitlines() if line.startswith("| ") and line.split("|")[1].strip().isdigit()
    ]
    documented = {int(row[1]) for row in rows}
    assert documented == {0, 1, 129, 130, 143} | {child.exit_code for child in errors.EdgepackError.__subclasses__()}


def test_errors_survive_the_way_out_of_a_child() -> None:
    """An error raised in a child process arrives with message, hint and details."""
    import pickle

    sent = errors.ConversionError("what", hint="do", details={"log_tail": "x"})
    got = pickle.loads(pickle.dumps(sent))
    assert (type(got), got.message, got.hint, got.details) == (errors.ConversionError, "what", "do", {"log_tail": "x"})


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["build", "--help"], ["targets", "list"], ["cache", "show"]],
    ids=" ".join,
)
def test_light_commands_load_nothing_heavy(arguments: list[str]) -> None:
    """Help and listings load no TensorFlow, no runtime, no NumPy."""
    code = (
        "import sys; from edgepack.cli.main import run; code = run(sys.argv[1:]); "
        "heavy = ('tensorflow', 'keras', 'ai_edge_litert', 'ai_edge_quantizer', 'numpy', 'jinja2'); "
        "print(','.join(m for m in heavy if m in sys.modules), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.strip().splitlines()[-1].split(",")) - {""} if done.stderr.strip() else set()
    assert loaded <= ({"numpy"} if arguments[0] == "targets" else set())


def test_no_file_names_a_machine_or_a_registry() -> None:
    """No committed text holds a path of a build machine or the host of a package registry."""
    hosts = (
        "pypi" + ".org",
        "files.pythonhosted" + ".org",
        "registry.npmjs" + ".org",
        "repo1.maven" + ".org",
        "deb.debian" + ".org",
    )
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        path = REPOSITORY / name
        if path == Path(__file__) or not path.is_file():
            continue
        text = path.read_bytes()
        for word in hosts:
            assert word.encode() not in text, f"{name} names {word}"


def test_test_files_have_names_of_their_own() -> None:
    """Pytest imports test files by their base name: two of one name break the whole run."""
    names = [path.name for path in (REPOSITORY / "tests").rglob("test_*.py") if "golden" not in path.parts]
    assert sorted(names) == sorted(set(names))
