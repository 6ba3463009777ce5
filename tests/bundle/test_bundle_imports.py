"""The modules of edgepack.bundle import each other in one direction only."""

import ast
from pathlib import Path

import edgepack.bundle

PACKAGE = Path(edgepack.bundle.__file__).parent


def module_imports(path: Path, modules: set[str]) -> set[str]:
    """Return the modules that a file imports, inside functions and for type checkers too."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return imported & modules


def find_circle(imports: dict[str, set[str]]) -> list[str]:
    """Return a circle of modules, each importing the next; empty when there is none."""
    finished: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in finished:
            return []
        for target in sorted(imports[module]):
            if circle := visit(target, [*trail, module]):
                return circle
        finished.add(module)
        return []

    return next((circle for module in sorted(imports) if (circle := visit(module, []))), [])


def test_no_import_circles() -> None:
    """No module of the package imports itself through others, not even lazily or for type checkers."""
    paths = {
        ".".join(("edgepack.bundle", *path.relative_to(PACKAGE).with_suffix("").parts)): path
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    }
    assert find_circle({name: module_imports(path, set(paths)) for name, path in paths.items()}) == []


def test_a_circle_is_found() -> None:
    """The search sees a circle of any length and none where there is none."""
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
