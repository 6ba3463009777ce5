"""load_profile: the four targets load, and one error reports all faults with their file and key path."""

import re
from pathlib import Path

import pytest

from edgepack.errors import ProfileError, UsageError
from edgepack.profiles import TargetProfile, load_profile
from edgepack.profiles.variants import choose_variant, resolve_variant
from edgepack.schemes import SCHEMES

REPOSITORY = Path(__file__).resolve().parents[2]
TARGETS = ("android-gpu", "cpu", "edgetpu", "hexagon")

PROFILE = """\
schema = 1
id = "npu"
title = "An NPU"

[quantization]
batch = 1
[[quantization.schemes]]
scheme = "int8"
io = "INT8"

[ops]
fallback = "host"
[ops.partition]
strategy = "every"

[compiler]
id = "npu"
[memory]
on_chip_bytes = 1000
[bundle]
template = "linux"

[[variants]]
id = "one"
title = "First"
[[variants]]
id = "two"
title = "Second"
table = "ops-two.toml"
archs = ["v2"]

[socs.CHIP]
arch = "v2"

[[sources]]
id = "sheet"
url = "https://example.com"
fact = "Everything."
level = "documentation"
"""

OPS = """\
[defaults]
dtypes = { data = ["INT8"] }
range = { stride_w = [1, 3], stride_h = [1, 3] }

[max_version]
CONV_2D = 3

[[row]]
ops = ["CONV_2D"]
source = "sheet"
dtypes = { weights = ["INT8"] }
range = { stride_w = [1, 2] }

[[row]]
ops = ["ADD", "CUSTOM:Mine"]
source = "sheet"
range = false

[refused]
DIV = "it does not divide"

[file]
source = "sheet"
max_versions = { CONV_2D = 5 }
"""


def write(folder: Path, profile: str = PROFILE, ops: str = OPS, second: str = OPS) -> Path:
    (folder / "profile.toml").write_text(profile)
    (folder / "ops.toml").write_text(ops)
    (folder / "ops-two.toml").write_text(second)
    return folder / "profile.toml"


def changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize("target", TARGETS)
def test_built_in_targets_load(target: str) -> None:
    """Every built-in target loads, with existing schemes, an op table for each variant, and sources for its rows."""
    profile = load_profile(REPOSITORY / "targets" / target)
    assert profile.id == target
    assert profile.batch == 1
    assert profile.sources
    known = {source.id for source in profile.sources}
    # A measurement says what measured; the page of the target shows it row by row.
    assert [source.id for source in profile.sources if source.level == "measured" and not source.by] == []
    for variant in profile.variants:
        assert variant.schemes
        assert {rule.scheme for rule in variant.schemes} <= set(SCHEMES)
        assert all(rule.why for rule in variant.schemes)
        assert {rule.source for rule in variant.ops.ops.values()} <= known


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("cpu", ["int8", "dynamic-range", "float16", "float32", "int8-qat", "int16x8"]),
        ("android-gpu", ["float16", "float32", "int8", "dynamic-range", "int8-qat"]),
        ("edgetpu", ["int8", "int8-qat"]),
        ("hexagon", ["int8", "int8-qat"]),
    ],
)
def test_scheme_table(target: str, expected: list[str]) -> None:
    """Targets have their schemes in order of preference."""
    assert [rule.scheme for rule in load_profile(REPOSITORY / "targets" / target).schemes] == expected


def test_integer_only_targets_ask_for_their_details() -> None:
    """The Edge TPU and the legacy Hexagon need dense layers per tensor, the HTP per channel; inputs are int8."""
    edgetpu = load_profile(REPOSITORY / "targets" / "edgetpu").schemes[0]
    assert (edgetpu.io, edgetpu.fully_connected) == ("INT8", "per-tensor")
    htp, legacy = load_profile(REPOSITORY / "targets" / "hexagon").variants
    assert (htp.schemes[0].io, htp.schemes[0].fully_connected) == ("INT8", "per-channel")
    assert (legacy.schemes[0].io, legacy.schemes[0].fully_connected) == ("INT8", "per-tensor")
    assert "SM8550" in htp.socs
    assert "SM8150" in legacy.socs


def test_reads_what_the_file_says(tmp_path: Path) -> None:
    """Values are read, rows override the defaults, and variants inherit what they omit."""
    profile = load_profile(write(tmp_path))
    one, two = profile.variants
    assert (profile.id, profile.fallback, profile.bundle.delegate, profile.folder) == ("npu", "host", "none", tmp_path)
    assert profile.compiler is not None
    assert profile.compiler.policy == "optional"
    assert profile.memory is not None
    assert profile.memory.parameter_bytes == 1000
    assert (one.socs, two.socs) == ((), ("CHIP",))
    assert one.schemes == two.schemes == profile.schemes
    assert profile.ops.ops["CONV_2D"].constraints == {
        "dtypes": {"data": ["INT8"], "weights": ["INT8"]},
        "max-version": 3,
        "range": {"stride_w": [1, 2], "stride_h": [1, 3]},
    }
    assert profile.ops.ops["CUSTOM:Mine"].constraints == {"dtypes": {"data": ["INT8"]}}
    assert profile.ops.refused == {"DIV": "it does not divide"}
    assert profile.ops.file is not None
    assert profile.ops.file.max_versions == {"CONV_2D": 5}


def test_hash_is_of_the_bytes(tmp_path: Path) -> None:
    """The same bytes have the same hash in any folder; a byte in any of the files changes it."""
    hashes = set()
    texts_of = [
        (PROFILE, OPS, OPS),
        (PROFILE, OPS, OPS + "\n"),
        (PROFILE, OPS + "\n", OPS),
        (PROFILE + "\n", OPS, OPS),
    ]
    for i, texts in enumerate(texts_of):
        folder = tmp_path / str(i)
        folder.mkdir()
        hashes.add(load_profile(write(folder, *texts)).sha256)
    again = tmp_path / "again"
    again.mkdir()
    assert len(hashes) == 4
    assert load_profile(write(again)).sha256 in hashes


#: Replaced text, its replacement, and the fault: key path and message.
PROFILE_FAULTS = [
    ("schema = 1", "schema = 2", "schema: expected 1, got 2"),
    ("schema = 1\n", "", "schema: missing: expected an integer"),
    ('id = "npu"', 'id = "My NPU"', "id: expected an id of lower-case letters, digits, '-' and '_', got 'My NPU'"),
    ('title = "An NPU"', "title = 3", "title: expected a string, got 3"),
    ('title = "An NPU"', 'title = ""', "title: expected a string that is not empty, got ''"),
    ('title = "An NPU"', 'title = "An NPU"\nsumary = ""', "sumary: unknown key, did you mean 'summary'?"),
    ("batch = 1", "batch = -1", "[quantization].batch: expected an integer from 0, got -1"),
    ("batch = 1", "batch = true", "[quantization].batch: expected an integer from 0, got true"),
    ('io = "INT8"', 'io = "int8"', "[quantization].schemes[0].io: expected one of FLOAT32, INT8, UINT8, got 'int8'"),
    ('scheme = "int8"', 'scheme = "int9"', "[quantization].schemes[0].scheme: expected one of float32, "),
    ('scheme = "int8"\n', "", "[quantization].schemes[0].scheme: missing: expected one of float32, "),
    ('io = "INT8"', 'io = "INT8"\nfoo = 1', "[quantization].schemes[0].foo: unknown key"),
    (
        'io = "INT8"',
        '[[quantization.schemes]]\nscheme = "int8"',
        "[quantization].schemes[1].scheme: 'int8' is used twice",
    ),
    (
        '[[quantization.schemes]]\nscheme = "int8"\nio = "INT8"',
        "",
        "[quantization].schemes: expected at least one scheme",
    ),
    ("[quantization]\nbatch = 1\n[[quantization.schemes]]", "[[schemes]]", "[quantization]: missing: expected a table"),
    ('fallback = "host"', 'fallback = "maybe"', "[ops].fallback: expected one of host, deny, got 'maybe'"),
    ('fallback = "host"', 'table = "../ops.toml"', "[ops].table: expected the name of a .toml file beside"),
    (
        'strategy = "every"',
        'strategy = "all"',
        "[ops].partition.strategy: expected one of first, largest, every, got 'all'",
    ),
    (
        '[compiler]\nid = "npu"',
        '[compiler]\npolicy = "no"',
        "[compiler].policy: expected one of optional, required, got 'no'",
    ),
    ('[compiler]\nid = "npu"', '[compiler]\npolicy = "optional"', "[compiler].id: missing: expected a string"),
    ('[compiler]\nid = "npu"', '[compiler]\nid = "npu"\nschemes = ["int9"]', "[compiler].schemes[0]: expected one of"),
    ('io = "INT8"', "chip = { arch = 73 }", "[quantization].schemes[0].chip.arch: unknown key"),
    ('io = "INT8"', 'mixed = ["int4"]', "[quantization].schemes[0].mixed: expected one of float32, int16, got 'int4'"),
    ('io = "INT8"', "mixed_chip = { min_arch = 73 }", "[quantization].schemes[0].mixed_chip: has no effect without"),
    ('io = "INT8"', "wide_bias = 64", "[quantization].schemes[0].wide_bias: expected true or false, got 64"),
    (
        'io = "INT8"',
        'layer_norm = "LAYER_NORM"',
        "[quantization].schemes[0].layer_norm: expected one of L2_NORMALIZATION, got 'LAYER_NORM'",
    ),
    (
        'io = "INT8"',
        "layer_norm = true",
        "[quantization].schemes[0].layer_norm: expected one of L2_NORMALIZATION, got true",
    ),
    (
        'io = "INT8"',
        'mixed = ["int16"]\nmixed_chip = { arch = 73 }',
        "[quantization].schemes[0].mixed_chip.arch: unknown key",
    ),
    ('io = "INT8"', "chip = { min_arch = 73 }", "[quantization].schemes: expected at least one scheme without `chip`"),
    (
        "on_chip_bytes = 1000",
        "on_chip_bytes = 9\nlayout = { rows = 0 }",
        "[memory].layout.rows: expected an integer from 1, got 0",
    ),
    ("on_chip_bytes = 1000", "on_chip_bytes = 9\nlayout = { row = 1 }", "[memory].layout.row: unknown key"),
    ("on_chip_bytes = 1000", "on_chip_bytes = 0", "[memory].on_chip_bytes: expected an integer from 1, got 0"),
    ("on_chip_bytes = 1000", "on_chip_bytes = 9\nparameter_bytes = 10", "[memory].parameter_bytes: expected at most"),
    (
        "on_chip_bytes = 1000",
        "on_chip_bytes = 9\ngrowth = [2, 1]",
        "[memory].growth: expected [lowest, highest], above",
    ),
    (
        "on_chip_bytes = 1000",
        "on_chip_bytes = 9\ngrowth = [1]",
        "[memory].growth: expected a list of 2 numbers, got [1]",
    ),
    ('template = "linux"', 'delegate = "none"', "[bundle].template: missing: expected a string"),
    (
        'template = "linux"',
        'template = "linux"\ndelegate = "vpu"',
        "[bundle].delegate: expected one of none, gpu, edgetpu,",
    ),
    (
        '[compiler]\nid = "npu"\n[memory]\non_chip_bytes = 1000\n[bundle]\ntemplate = "linux"\n\n[[variants]]\n',
        '[bundle]\ntemplate = "linux"\n\n[[variants]]\ncompiler_options = { core = 1 }\n',
        "[[variants]][0].compiler_options: the profile has no [compiler]",
    ),
    ('id = "two"', 'id = "one"', "[[variants]][1].id: 'one' is used twice"),
    ('archs = ["v2"]', 'archs = ["v3"]', "[[variants]][1].archs: no SoC under [socs] has arch 'v3'"),
    ('archs = ["v2"]', "archs = [2]", "[[variants]][1].archs: expected a list of strings, got [2]"),
    ('arch = "v2"\n', 'arch = "v2"\nfloat16 = "yes"\n', "[socs].CHIP.float16: expected true or false, got 'yes'"),
    (
        'level = "documentation"',
        'level = "sure"',
        "[[sources]][0].level: expected one of measured, source, documentation",
    ),
    ('url = "https://example.com"\n', "", "[[sources]][0].url: a source of level 'documentation' needs its address"),
    (
        'level = "documentation"',
        'level = "documentation"\ndate = "yesterday"',
        "[[sources]][0].date: expected a date, YYYY-MM-DD, got 'yesterday'",
    ),
    (
        'level = "documentation"',
        'level = "documentation"\nabout = ["colour"]',
        "[[sources]][0].about: expected one of schemes, partition, memory",
    ),
    ('table = "ops-two.toml"', 'table = "none.toml"', "none.toml: cannot be read"),
]


@pytest.mark.parametrize(("old", "new", "fault"), PROFILE_FAULTS)
def test_faults_of_a_profile(tmp_path: Path, old: str, new: str, fault: str) -> None:
    """Each kind of fault in profile.toml is reported with file, key path, expected and actual value."""
    path = write(tmp_path, changed(PROFILE, old, new))
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    assert fault in caught.value.message
    assert str(tmp_path) in caught.value.message
    assert caught.value.exit_code == 2


def test_a_profile_without_sources_is_refused(tmp_path: Path) -> None:
    """A profile needs sources for its facts."""
    path = write(tmp_path, re.sub(r"\[\[sources\]\].*", "", PROFILE, flags=re.S))
    with pytest.raises(ProfileError, match="needs at least one source"):
        load_profile(path)


ROW = 'ops = ["CONV_2D"]\nsource = "sheet"\n'

OPS_FAULTS = [
    (
        'ops = ["CONV_2D"]',
        'ops = ["conv"]',
        "[[row]][0].ops: expected a TFLite builtin name or CUSTOM:name, got 'conv'",
    ),
    ('ops = ["CONV_2D"]', "ops = []", "[[row]][0].ops: expected at least one op name"),
    ('ops = ["ADD"', 'ops = ["CONV_2D"', "[[row]][1].ops: CONV_2D is in an earlier row"),
    (
        'source = "sheet"',
        'source = "book"',
        "[[row]][0].source: no [[sources]] entry of profile.toml has the id 'book'",
    ),
    ('source = "sheet"\n', "", "[[row]][0].source: missing: expected a string"),
    (ROW, ROW + "max-rnk = 4\n", "[[row]][0].max-rnk: unknown constraint, did you mean 'max-rank'?"),
    (ROW, ROW + "max-rank = 4.0\n", "[[row]][0].max-rank: expected an integer from 0, got 4.0"),
    (ROW, ROW + 'static-shapes = "yes"\n', "[[row]][0].static-shapes: expected true, got 'yes'"),
    (ROW, ROW + "constant-inputs = 1\n", "[[row]][0].constant-inputs: expected a list of input positions, got 1"),
    (ROW, ROW + 'exact-version = ["2"]\n', "[[row]][0].exact-version[0]: expected an integer from 1, got '2'"),
    (ROW, ROW + 'fused-activation = ["RELU7"]\n', "[[row]][0].fused-activation[0]: expected one of NONE, RELU, "),
    (ROW, ROW + 'broadcast = "all"\n', "[[row]][0].broadcast: expected one of gpu-legacy, none, numpy, got 'all'"),
    (ROW, ROW + 'one-dimensional = ["axis"]\n', "[[row]][0].one-dimensional[0]: expected one of bias, data, input, "),
    (ROW, ROW + 'dtype-pairs = [["INT8"]]\n', "[[row]][0].dtype-pairs[0]: expected a pair [input type, output type]"),
    (ROW, ROW + 'dtype-pairs = [["INT8", "I8"]]\n', "[[row]][0].dtype-pairs[0][1]: expected one of BFLOAT16, "),
    (ROW, ROW + "options = { padding = 1 }\n", "[[row]][0].options.padding: expected a list of allowed values, got 1"),
    (ROW, ROW + 'consumers = "CAST"\n', "[[row]][0].consumers: expected a list of op names, got 'CAST'"),
    (ROW, ROW + "permutations = [[0, 2]]\n", "[[row]][0].permutations[0]: expected a permutation of 0..rank-1"),
    (ROW, ROW + "multiple-of = { input_c = 0 }\n", "[[row]][0].multiple-of.input_c: expected an integer from 1, got 0"),
    (ROW, ROW + 'equal-quantities = [["stride_w"]]\n', "[[row]][0].equal-quantities[0]: expected a pair of quantities"),
    (ROW, ROW + 'equal-quantities = [["stride_w", "x"]]\n', "[[row]][0].equal-quantities[0]: unknown quantity 'x'"),
    (ROW, ROW + "when = [{ if = { max-rank = 4 } }]\n", "[[row]][0].when[0]: expected a table with 'if' and 'then'"),
    (
        ROW,
        ROW + "when = [{ if = { max-rank = 4 }, then = { max-rank = -1 } }]\n",
        "[[row]][0].when[0].then.max-rank: expected an integer from 0, got -1",
    ),
    (ROW, ROW + "any-of = [{ max-rank = 4 }]\n", "[[row]][0].any-of: expected a list of at least two tables"),
    (ROW, ROW + "any-of = [{ max-rank = 4 }, { foo = 1 }]\n", "[[row]][0].any-of[1].foo: unknown constraint"),
    (
        'dtypes = { data = ["INT8"] }',
        'dtypes = { data = ["int8"] }',
        "[defaults].dtypes.data[0]: expected one of BFLOAT16",
    ),
    (
        'dtypes = { data = ["INT8"] }',
        'dtypes = { dat = ["INT8"] }',
        "[defaults].dtypes.dat: expected one of bias, data",
    ),
    (
        "stride_w = [1, 3]",
        "stride = [1, 3]",
        "[defaults].range.stride: unknown quantity 'stride', did you mean 'stride_",
    ),
    ("stride_w = [1, 3]", "stride_w = [3, 1]", "[defaults].range.stride_w: expected lowest <= highest, got [3, 1]"),
    ("stride_w = [1, 3]", "stride_w = 3", "[defaults].range.stride_w: expected [lowest, highest], got 3"),
    ("CONV_2D = 3", "MUL = 3", "[max_version].MUL: no row has this op"),
    ("CONV_2D = 3", "CONV_2D = 0", "[max_version].CONV_2D: expected an integer from 1, got 0"),
    ("DIV =", "ADD =", "[refused].ADD: a row supports this op"),
    ('"it does not divide"', '""', "[refused].DIV: expected a sentence, got ''"),
    ("max_versions = { CONV_2D = 5 }", 'max_runtime_version = "new"', "[file].max_runtime_version: expected a version"),
    ("[refused]", "[refuse]", "refuse: unknown key, did you mean 'refused'?"),
]


@pytest.mark.parametrize(("old", "new", "fault"), OPS_FAULTS)
def test_faults_of_an_op_table(tmp_path: Path, old: str, new: str, fault: str) -> None:
    """Each kind of fault in an op table is reported with file and key path."""
    with pytest.raises(ProfileError) as caught:
        load_profile(write(tmp_path, ops=changed(OPS, old, new)))
    assert f"{tmp_path / 'ops.toml'}: {fault}" in caught.value.message


def test_all_faults_of_all_files_come_at_once(tmp_path: Path) -> None:
    """One error lists the faults of profile.toml and of both op tables."""
    profile = changed(changed(PROFILE, "schema = 1", "schema = 9"), 'io = "INT8"', 'io = "int8"')
    path = write(tmp_path, profile, changed(OPS, "CONV_2D = 3", "MUL = 3"), "x = 1")
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    faults = caught.value.details["faults"]
    assert [fault.split(":")[0].rsplit("/", 1)[1] for fault in faults] == [
        "profile.toml",
        "profile.toml",
        "ops.toml",
        "ops-two.toml",
        "ops-two.toml",
    ]


@pytest.mark.parametrize("content", [b"schema = ", b"\xff\xfe\x00", b""])
def test_files_that_are_no_profile(tmp_path: Path, content: bytes) -> None:
    """Invalid TOML, other encodings and empty files are profile errors that name the file."""
    path = tmp_path / "profile.toml"
    path.write_bytes(content)
    with pytest.raises(ProfileError, match=re.escape(str(path))):
        load_profile(path)


def test_a_missing_file_says_what_a_target_is(tmp_path: Path) -> None:
    """A folder without profile.toml is a profile error with a hint."""
    with pytest.raises(ProfileError, match="cannot be read") as caught:
        load_profile(tmp_path)
    assert "profile.toml" in caught.value.hint


@pytest.fixture
def npu(tmp_path: Path) -> TargetProfile:
    return load_profile(write(tmp_path))


@pytest.mark.parametrize(
    ("variant", "soc", "expected"), [("", "", "one"), ("two", "", "two"), ("", "chip", "two"), ("one", "CHIP", "one")]
)
def test_variants_are_chosen(npu: TargetProfile, variant: str, soc: str, expected: str) -> None:
    """By id, else by the SoC (case-insensitive), else the first."""
    assert choose_variant(npu, variant=variant, soc=soc).id == expected


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("", {"core": "small", "speed": 1}),
        ("one", {"core": "small", "speed": 1}),
        ("two", {"core": "large", "speed": 1}),
    ],
)
def test_compiler_options_of_a_variant(tmp_path: Path, variant: str, options: dict[str, object]) -> None:
    """A variant's options are added to the profile's, whose equal keys they replace; other variants keep theirs."""
    text = changed(PROFILE, 'id = "npu"\n[memory]', 'id = "npu"\noptions = { core = "small", speed = 1 }\n[memory]')
    text = changed(text, 'archs = ["v2"]', 'archs = ["v2"]\ncompiler_options = { core = "large" }')
    second = changed(OPS, 'ops = ["ADD", "CUSTOM:Mine"]', 'ops = ["RELU"]')
    resolved = resolve_variant(load_profile(write(tmp_path, text, second=second)), variant=variant)
    assert resolved.compiler is not None
    assert resolved.compiler.options == options
    assert ("RELU" in resolved.ops.ops) == (variant == "two")


@pytest.mark.parametrize(
    ("variant", "soc", "hint"), [("tow", "", "variants are: one, two"), ("", "CHOP", "SoCs are: CHIP")]
)
def test_unknown_variants_are_refused(npu: TargetProfile, variant: str, soc: str, hint: str) -> None:
    """An unknown variant or SoC is an error that lists the known ones."""
    with pytest.raises(UsageError, match="did you mean") as caught:
        choose_variant(npu, variant=variant, soc=soc)
    assert caught.value.hint == hint


@pytest.mark.parametrize(("arch", "soc", "kinds"), [("v2", "CHIP", ()), ("v3", "CHIP", ("int16",)), ("v3", "", ())])
def test_mixing_is_a_matter_of_the_chip(tmp_path: Path, arch: str, soc: str, kinds: tuple[str, ...]) -> None:
    """Single ops get wider types only on a specified SoC that meets `mixed_chip`; int8 is available on all."""
    text = changed(PROFILE, 'io = "INT8"', 'mixed = ["int16"]\nmixed_chip = { min_arch = 3 }\nwide_bias = false')
    profile = load_profile(write(tmp_path, text.replace('"v2"', f'"{arch}"')))
    (rule,) = choose_variant(profile, soc=soc).schemes
    assert (rule.scheme, rule.mixed, rule.wide_bias) == ("int8", kinds, False)
    assert profile.schemes[0].mixed == ()


@pytest.mark.parametrize(("line", "op"), [("", ""), ('layer_norm = "L2_NORMALIZATION"', "L2_NORMALIZATION")])
def test_the_op_of_layer_norms_is_a_matter_of_the_scheme(tmp_path: Path, line: str, op: str) -> None:
    """A scheme names the op that LayerNorm becomes in its files; without one, none is tried."""
    profile = load_profile(write(tmp_path, changed(PROFILE, 'io = "INT8"', f'io = "INT8"\n{line}')))
    assert [rule.layer_norm for rule in profile.schemes] == [op]


def test_which_targets_compute_layer_norms_by_one_op() -> None:
    """CPU and Edge TPU do, and their tables have the op; Hexagon's loses what the op gains elsewhere."""
    for target, op in (("cpu", "L2_NORMALIZATION"), ("edgetpu", "L2_NORMALIZATION"), ("hexagon", "")):
        profile = load_profile(REPOSITORY / "targets" / target)
        assert {rule.layer_norm for rule in profile.schemes if rule.scheme == "int8"} == {op}
