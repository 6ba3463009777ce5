"""Fixtures that every room's tests share."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def find_shared_models() -> Path | None:
    """Return the folder of real test models, None when it is not on this machine."""
    for candidate in (os.environ.get("EDGEPACK_TEST_MODELS"), str(REPOSITORY.parent / "shared" / "models")):
        if candidate and Path(candidate).is_dir():
            return Path(candidate)
    return None


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Folder with coral/ and mlperf-tiny/; skips where the models are not at hand."""
    found = find_shared_models()
    if found is None:
        pytest.skip(
            "real test models not found: set EDGEPACK_TEST_MODELS to the folder that holds coral/ and mlperf-tiny/"
        )
    return found


@pytest.fixture(scope="session")
def postprocessing_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with models whose last steps can go to the loader, and samples.npz."""
    from postprocessing_models import make_folder

    return make_folder(tmp_path_factory.mktemp("tail-models"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test away from the user's cache."""
    monkeypatch.setenv("EDGEPACK_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run fast tests first: a broken import should show in seconds."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
