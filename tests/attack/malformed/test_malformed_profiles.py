"""Target profiles and op tables of any content: a ProfileError that names the place, or a profile that can be used."""

import datetime
import math
import os
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import tomli_w
from hypothesis import given
from malformed_documents import HOSTILE, SETTINGS, at, mutated, places, plain_values, replaced

from edgepack.compat import check
from edgepack.errors import EdgepackError, ProfileError
from edgepack.graph import read_model
from edgepack.profiles.load import load_profile
from edgepack.profiles.variants import chips_for, choose_variant
from edgepack.quantize.preview import preview

ROOT = Path(__file__).parents[3]
CORPUS = ROOT / "tests" / "corpus"
TARGETS = ("edgetpu", "hexagon", "android-gpu")
#: What only TOML has.
TOML_ONLY = (math.inf, -math.inf, math.nan, datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1), datetime.time(1))
VALUES = plain_values(*TOML_ONLY)
NAMES = {path.name for path in (ROOT / "targets").glob("*/*.toml")}
SEEDS = st.sampled_from(TARGETS)


@cache
def seed(target: str) -> dict[str, Any]:
    """Return a target's files as one document, with the first two rows that use each constraint."""
    folder = ROOT / "targets" / target
    files = {path.name: tomllib.loads(path.read_text()) for path in sorted(folder.glob("*.toml"))}
    for document in files.values():
        uses: dict[str, int] = {}
        rows = []
        for row in document.get("row", []):
            if any(uses.get(key, 0) < 1 for key in row):
                rows.append({**row, "ops": row["ops"][:2]})
            for key in row:
                uses[key] = uses.get(key, 0) + 1
        if "sources" in document:
            document["sources"] = document["sources"][:1]
        file = document.get("file", {})
        for key in {"failing", "uncertain"} & file.keys():
            file[key] = file[key][:1]
        for row in [*rows, *([file] if file else []), *file.get("failing", []), *file.get("uncertain", [])]:
            row["source"] = source_of(folder)
        if rows:
            document["row"] = rows
            ops = {op for row in rows for op in row["ops"]}
            for key in ("max_version", "min_runtime"):
                if key in document:
                    document[key] = {op: value for op, value in document[key].items() if op in ops}
            if "refused" in document:
                document["refused"] = dict(list(document["refused"].items())[:2])
            if "max_versions" in file:
                document["file"]["max_versions"] = dict(list(document["file"]["max_versions"].items())[:2])
    if "latency.toml" in files:
        files["latency.toml"]["source"] = source_of(folder)
        files["latency.toml"]["hosts"] = files["latency.toml"]["hosts"][:1]
    return files


@cache
def source_of(folder: Path) -> str:
    """Return the id of a target's first source, the only one that the seeds keep."""
    return str(tomllib.loads((folder / "profile.toml").read_text())["sources"][0]["id"])


@cache
def models() -> list[Any]:
    return [read_model(CORPUS / f"{name}.tflite") for name in ("classifier", "two-in-two-out", "slice")]


def use(folder: Path, files: dict[str, Any]) -> str:
    """Write the files and use the profile as commands do; return the message of its error, empty without one."""
    for name, document in files.items():
        (folder / name).write_bytes(document if isinstance(document, bytes) else tomli_w.dumps(document).encode())
    try:
        profile = load_profile(folder)
    except ProfileError as error:
        assert error.exit_code == 2 and error.message.strip()
        return error.message
    for soc in ("", *profile.socs):
        choose_variant(profile, soc=soc)
    for variant in profile.variants:
        for rule in variant.schemes or profile.schemes:
            chips_for(profile, rule.scheme)
        for model in models():
            check(preview(model, variant.schemes[0]), profile, variant=variant.id)
    return ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], str]:
    """Return a function that uses files of a profile."""
    root = tmp_path_factory.mktemp("profile")
    return lambda files: use(root, files)


@pytest.mark.parametrize("target", TARGETS)
def test_the_seeds_are_sound(folder: Callable[[dict[str, Any]], str], target: str) -> None:
    """The files that the tests mutate are profiles without faults."""
    assert folder(seed(target)) == ""


def test_every_field_with_values_of_every_type(folder: Callable[[dict[str, Any]], str]) -> None:
    """Each value of a profile and its op table is replaced in turn: the message names the file and the key."""
    files = seed("edgetpu")
    for number, place in enumerate(places(files)):
        if len(place) < 2:
            continue
        # A part of the values for each place, another one for the next: all types for each kind of field.
        for value in (*HOSTILE, *TOML_ONLY)[number % 17 :: 17]:
            if type(value) is type(at(files, place)) and not isinstance(value, list | dict):
                continue
            message = folder(replaced(files, place, value))
            if message:
                named = [str(key) for key in place[1:] if isinstance(key, str)]
                assert str(place[0]) in message, message
                assert any(key in message for key in named), (place, value, message)


#: Values out of range for each type of TOML; 10**400 is refused as an integer of more than 64 bits.
OUT_OF_RANGE: dict[type, tuple[Any, ...]] = {
    int: (-1, -(1 << 63), (1 << 63) - 1, 10**400),
    float: (-1.0, math.nan, math.inf, -math.inf, 1e308),
    str: ("", " ", "no such value"),
    list: ([],),
    dict: ({},),
}
ANY_TEXT = ("", " ", "no such value")
ANY_INTEGER = (-1, -(1 << 63), (1 << 63) - 1)

#: Values of `OUT_OF_RANGE` that are in range all the same, by a part of their place.
ALLOWED: dict[str, tuple[Any, ...]] = {
    # Free text, and text without which there is only less to show.
    "title": ("no such value",), "fact": ("no such value",), "url": ("no such value",), "refused": ("no such value",),
    "by": ("no such value",), "about": ([],),
    "summary": ANY_TEXT, "install": ANY_TEXT, "why": ANY_TEXT, "cut": ANY_TEXT,
    # What entry points, folders of templates and the compiler's wrapper decide.
    "manufacturer": ("no such value",), "arch": ("no such value",),
    "compiler.options": (*ANY_TEXT, *ANY_INTEGER, [], {}), "bundle.options": (*ANY_TEXT, *ANY_INTEGER, [], {}),
    # Options and axes may be negative, and a range may have no limit.
    "options": (*ANY_TEXT, *ANY_INTEGER, -1.0, 1e308), "forbidden-axes": (-1,), "axes-within": (-1,),
    "range": ((1 << 63) - 1, math.inf, -math.inf, 1e308), "alpha": (-1.0, *ANY_INTEGER),
    # Tables and lists that may be empty.
    "defaults": ({},), "layout": ({},), "ops": ({},), "partition": ({},), "max_version": ({},), "min_runtime": ({},),
    "fix": ANY_TEXT, "reason": ("no such value",), "refused_types": ([],), "refused_io_types": ([],),
    "failing": ([],), "uncertain": ([],), "max_versions": ({},),
    "socs": ({},), "archs": ([],), "variants": ([],), "mixed": ([],), "refused.": ({},),
}  # fmt: skip


def allowed(place: tuple[str | int, ...], value: Any) -> bool:
    """Return whether a value is in range at a place."""
    named = f".{'.'.join(str(key) for key in place[1:] if isinstance(key, str))}."
    return any(f".{key.strip('.')}." in named and value in values for key, values in ALLOWED.items())


@pytest.mark.parametrize("target", TARGETS)
def test_every_field_with_values_out_of_range(folder: Callable[[dict[str, Any]], str], target: str) -> None:
    """Each value is replaced by others of its type that are out of range: the message has the place and what fits."""
    files = seed(target)
    tried: set[tuple[Any, ...]] = set()
    for place in places(files):
        kind = tuple(0 if isinstance(key, int) else key for key in place)
        if len(place) < 2 or kind in tried:
            continue
        tried.add(kind)
        for value in OUT_OF_RANGE.get(type(at(files, place)), ()):
            if allowed(place, value):
                continue
            message = folder(replaced(files, place, value))
            named = [str(key) for key in place[1:] if isinstance(key, str)]
            assert message, f"{place}: {value!r:.40} passes"
            assert any(word in message for word in ("expected", "needs", "unknown", "no ")), message
            assert any(key in message for key in named), (place, value, message)


@SETTINGS
@given(st.data())
def test_mutated_profiles(folder: Callable[[dict[str, Any]], str], data: st.DataObject) -> None:
    """One to three changes at random places: a ProfileError, or a profile that the check accepts."""
    files = data.draw(mutated(seed(data.draw(SEEDS)), VALUES))
    folder({name: document if isinstance(document, dict) else {} for name, document in files.items() if name in NAMES})


@SETTINGS
@given(st.data())
def test_damaged_text(folder: Callable[[dict[str, Any]], str], data: st.DataObject) -> None:
    """Bytes of a file replaced, removed or added."""
    files = dict(seed("edgetpu"))
    name = data.draw(st.sampled_from(sorted(files)))
    text = bytearray(tomli_w.dumps(files[name]).encode())
    start = data.draw(st.integers(0, len(text)))
    text[start : start + data.draw(st.integers(0, 40))] = data.draw(
        st.one_of(st.binary(max_size=6), st.sampled_from(PIECES))
    )
    files[name] = bytes(text)
    folder(files)


PIECES = (b"=", b"[", b"]]", b"\n[[row]]\n", b'"""', b"9" * 5000, b"nan", b"1e999", b"\xff", b"\\ud800", b"\r", b"#")

TEXTS = {
    "long integers": b"schema = 1" + b"0" * 400,
    "integers of 5,000 digits": b"schema = 1" + b"0" * 5000,
    "deep lists": b"schema = " + b"[" * 100_000,
    "nested lists": b"schema = " + b"[" * 200 + b"]" * 200,
    "nested keys": b".".join([b"a"] * 20_000) + b" = 1",
    "not a number": b"schema = nan",
    "bytes": b"\xff\xfe\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("file", ["profile.toml", "ops.toml"])
def test_documents_beyond_the_format(folder: Callable[[dict[str, Any]], str], file: str, name: str) -> None:
    """What the parser accepts or fails on with another exception is one fault that names the file."""
    message = folder({**seed("edgetpu"), file: TEXTS[name]})
    assert (file in message and message.isprintable()) or "\n" in message


def test_a_pipe_in_place_of_a_profile(tmp_path: Path) -> None:
    """A pipe without a writer is refused and does not hang."""
    os.mkfifo(tmp_path / "profile.toml")
    with pytest.raises(EdgepackError, match=r"profile\.toml: cannot be read: expected a regular file"):
        load_profile(tmp_path)
