"""Specs of real models, the Kotlin and Java compilers, and the flag that updates golden text."""

from collections.abc import Callable, Iterator
from pathlib import Path

import jvm_tools
import pytest
from bundle_specs import spec_of_file
from kotlin_tools import Kotlin, find_kotlin

from edgepack.bundle.spec import BundleSpec


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden from what is rendered now")


@pytest.fixture
def make_spec(shared_models: Path) -> Callable[..., BundleSpec]:
    """Return a function that creates the spec of a file under the shared models for a target."""

    def make(file: str, target: str, **changes: object) -> BundleSpec:
        return spec_of_file(shared_models / file, target, **changes)

    return make


@pytest.fixture(scope="session")
def kotlin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kotlin]:
    """The Kotlin and the Java compiler, warm; tests that use them run on one worker (tests/conftest.py)."""
    with find_kotlin(tmp_path_factory.mktemp("kotlin")) as compilers:
        yield compilers


@pytest.fixture(scope="session")
def standins(kotlin: Kotlin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with compiled stand-ins for Android and the runtime, which replay recorded runs."""
    return jvm_tools.compile_standins(kotlin, tmp_path_factory.mktemp("standins"))
