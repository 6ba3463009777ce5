"""Promise: a child process loads large packages without parts that serve nothing, and is as before afterwards."""

import gc
import subprocess
import sys

import pytest

from edgepack.lean_import import lean_import


def test_hides_packages_only_in_the_block() -> None:
    """In the block a package counts as missing; afterwards it can be imported, and the collector runs again."""
    sys.modules.pop("wave", None)
    with lean_import("wave"):
        assert not gc.isenabled()
        with pytest.raises(ImportError):
            import wave
    assert gc.isenabled()
    import wave

    with lean_import("wave"):
        # What is loaded already is no longer hidden from anyone.
        assert sys.modules["wave"] is wave
    assert sys.modules["wave"] is wave


def test_is_undone_when_the_import_fails() -> None:
    """An import that raises leaves neither the collector off nor a package hidden."""
    with pytest.raises(ModuleNotFoundError), lean_import("chunk_of_nothing"):
        import edgepack_no_such_module  # type: ignore[import-not-found]  # noqa: F401
    assert gc.isenabled()
    assert "chunk_of_nothing" not in sys.modules


@pytest.mark.slow
def test_tensorflow_comes_without_scikit_learn() -> None:
    """TensorFlow's import, the longest part of a conversion of a small model, does not load what no conversion uses."""
    code = (
        "import sys; from edgepack.convert.environment import import_tensorflow; import_tensorflow();"
        "print(sorted(n for n in sys.modules if n.split('.')[0] in ('sklearn', 'pandas')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_models_are_still_freed() -> None:
    """Only the objects of the import itself are exempt from the collector, not a model that is loaded afterwards."""
    code = (
        "import gc; from edgepack.convert.environment import import_tensorflow; import_tensorflow();"
        "before = gc.get_freeze_count(); model = [0]; model.append(model); import_tensorflow();"
        "print(gc.get_freeze_count() == before, before > 100_000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
