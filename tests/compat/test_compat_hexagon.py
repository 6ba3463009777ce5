"""Hexagon: the delegate, data types and schemes of each SoC."""

from pathlib import Path

import numpy as np
import pytest
from compat_graphs import one_op, tensor, weights

from edgepack.compat import check
from edgepack.errors import UsageError
from edgepack.findings import OpFinding
from edgepack.graph import Model, read_model
from edgepack.profiles import TargetProfile, get_target
from edgepack.profiles.variants import chips_for, choose_variant
from edgepack.quantize.preview import preview
from edgepack.quantize.select import select
from edgepack.schemes import Needs

DIGITS = Path(__file__).parent.parent / "data" / "digits_float.tflite"


@pytest.fixture(scope="module")
def hexagon() -> TargetProfile:
    return get_target("hexagon")


def conv(data: str = "INT8", kernel: str = "INT8", bias: str = "INT32") -> Model:
    kinds = {"INT32": np.int32, "INT64": np.int64, "FLOAT32": np.float32}
    steps = {"stride_w": 1, "stride_h": 1, "dilation_w": 1, "dilation_h": 1}
    tensors = [tensor(dtype=data), weights((6, 3, 3, 4), dtype=kernel), tensor((6,), bias, np.zeros(6, kinds[bias]))]
    return one_op("CONV_2D", tensors, [tensor((1, 8, 8, 6), data)], **steps)


def first_finding(network: Model, hexagon: TargetProfile, soc: str) -> OpFinding:
    return check(network, hexagon, soc=soc).ops[0]


@pytest.mark.parametrize(
    ("soc", "variant", "schemes"),
    [
        ("", "htp", ["int8", "int8-qat"]),
        ("SDM845", "dsp-legacy", ["int8", "int8-qat"]),
        ("SM8150", "dsp-legacy", ["int8", "int8-qat"]),
        ("SM8350", "htp", ["int8", "int8-qat"]),
        ("QCM6490", "htp", ["int8", "int8-qat"]),
        ("SM8450", "htp", ["int8", "int8-qat"]),
        ("SM8550", "htp", ["int8", "int8-qat", "float16", "int16x8"]),
        ("SM8650", "htp", ["int8", "int8-qat", "float16", "int16x8"]),
        ("SM8850", "htp", ["int8", "int8-qat", "float16", "int16x8"]),
        ("SM8635", "htp", ["int8", "int8-qat", "int16x8"]),
        ("SM7675", "htp", ["int8", "int8-qat", "int16x8"]),
    ],
)
def test_a_chip_has_its_delegate_and_its_schemes(
    hexagon: TargetProfile, soc: str, variant: str, schemes: list[str]
) -> None:
    """v65 and v66 use the legacy delegate; float16 is offered on SoCs known to have it, int16x8 from v73 on."""
    chosen = choose_variant(hexagon, soc=soc)
    assert (chosen.id, [rule.scheme for rule in chosen.schemes]) == (variant, schemes)


def test_a_scheme_of_some_chips_names_them(hexagon: TargetProfile) -> None:
    """float16 without a SoC, or on one without it, is refused with the SoCs that have it."""
    with pytest.raises(UsageError) as caught:
        select(hexagon, {Needs.NOTHING}, "float16")
    assert "on some chips only" in caught.value.message
    assert "SM8550" in caught.value.hint
    assert not {"SM8635", "SM7675", "SM8450", "SM8350", "SM8150"} & set(chips_for(hexagon, "float16"))
    assert chips_for(hexagon, "int8") == ()


@pytest.mark.parametrize("soc", ["SM8550", "SM8350", ""])
def test_weights_have_8_bits(hexagon: TargetProfile, soc: str) -> None:
    """The compiler refuses 16-bit weights for every SoC; 16-bit activations with 8-bit weights run, with any bias."""
    wide = first_finding(conv("INT16", "INT16"), hexagon, soc)
    assert (wide.placement, [reason.code for reason in wide.reasons]) == ("host", ["dtype-combination"])
    for bias in ("INT32", "INT64"):
        assert first_finding(conv("INT16", "INT8", bias), hexagon, soc).placement == "accelerator"


def test_depthwise_layers_of_16_bits_stay_on_the_cpu(hexagon: TargetProfile) -> None:
    """The compiler refuses them with every type of bias; the other layers of such a model run on the HTP."""
    model = read_model(DIGITS)
    rule = next(rule for rule in choose_variant(hexagon, soc="SM8550").schemes if rule.scheme == "int16x8")
    cut = check(preview(model, rule), hexagon, soc="SM8550")
    left = [op for op in cut.ops if op.placement == "host"]
    codes = {(op.op, reason.code) for op in left for reason in op.reasons}
    assert ("DEPTHWISE_CONV_2D", "dtype-combination") in codes
    assert "FULLY_CONNECTED" not in {op.op for op in left}


@pytest.mark.parametrize(
    ("soc", "placement"),
    [("SM8550", "accelerator"), ("SM8635", "host"), ("SM8350", "accelerator"), ("SM8450", "host"), ("", "host")],
)
def test_float_layers_by_chip(hexagon: TargetProfile, soc: str, placement: str) -> None:
    """A float convolution runs on SoCs that compute in float16, and on v68, whose compiler takes it as well."""
    assert first_finding(conv("FLOAT32", "FLOAT32", "FLOAT32"), hexagon, soc).placement == placement


def test_the_legacy_delegate_takes_one_scale_for_dense_weights(hexagon: TargetProfile) -> None:
    """Per-channel weights of FULLY_CONNECTED are refused on v65 and v66 and supported by QNN."""
    network = one_op("FULLY_CONNECTED", [tensor((1, 16)), weights((4, 16), scales=4)], [tensor((1, 4))])
    codes = [reason.code for reason in first_finding(network, hexagon, "SM8150").reasons]
    assert codes == ["per-channel-weights"]
    assert first_finding(network, hexagon, "SM8550").placement == "accelerator"


@pytest.mark.parametrize(("shapes", "fails"), [(((8, 1), None), True), ((None, (4,)), True), ((None, None), False)])
@pytest.mark.parametrize("soc", ["SM8350", "SM8550", "SM8850"])
def test_a_broadcast_select_of_an_input_in_int16_cannot_be_created(
    hexagon: TargetProfile, shapes: tuple[tuple[int, ...] | None, ...], fails: bool, soc: str
) -> None:
    """The compiler writes no file on any chip: the check says so, and what to do."""
    values = [tensor(shape or (1, 8, 8, 4), "INT16") for shape in shapes]
    network = one_op("SELECT_V2", [tensor(dtype="BOOL"), *values], [tensor(dtype="INT16")])
    codes = [reason.code for reason in first_finding(network, hexagon, soc).reasons]
    assert codes == (["compile-fails"] if fails else [])
