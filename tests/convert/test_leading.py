"""The arithmetic in front of a model's first layer is read from the original, where the converter folds it away."""

import pytest

from edgepack.child import Worker

PIXELS = ((1 / 255,), (0.0,))
SIGNED = ((1 / 127.5,), (-1.0,))
EXPECTED = {
    "rescaling": SIGNED,
    "normalization": ((1 / 60,) * 3, (-2.0, -110 / 60, -100 / 60)),
    "operators": SIGNED,
    "nested": PIXELS,
    "augmented": PIXELS,
    "plain": None,
    "activation": None,
}


@pytest.mark.slow
def test_arithmetic_is_read(tensorflow_worker: Worker) -> None:
    """Rescaling, Normalization and operators in both Keras versions and SavedModels; nothing where there is none."""
    found = tensorflow_worker.call("convert_models:arithmetic_of_models")
    expected = {f"{library} {name}": one for library in ("keras", "tf_keras") for name, one in EXPECTED.items()}
    expected["exported"] = PIXELS
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        assert (one is None) == (found[name] == {}), name
        if one is not None:
            scale, offset = found[name]["x"]
            assert scale == pytest.approx(one[0], rel=1e-4) and offset == pytest.approx(one[1], abs=1e-4), name
