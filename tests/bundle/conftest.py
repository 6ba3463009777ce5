"""Specs of real models and of a tiny fixed one, and the flag that updates golden text."""

from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_specs import spec_of_file

from edgepack.bundle.spec import BundleSpec


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden from what is rendered now")


@pytest.fixture
def make_spec(shared_models: Path) -> Callable[..., BundleSpec]:
    """Return a function that creates the spec of a file under the shared models for a target."""

    def make(file: str, target: str, **changes: object) -> BundleSpec:
        return spec_of_file(shared_models / file, target, **changes)

    return make
