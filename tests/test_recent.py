"""Promise: what was found out about a byte string is found out once, for that object only, in bounded memory."""

import pytest
from builders import classifier

from edgepack import recent
from edgepack.digests import sha256
from edgepack.graph import read_model
from edgepack.recent import Recent


def test_computed_once_for_an_object() -> None:
    """The same object is known, an equal one is another: a digest never comes from a different string."""
    known: Recent[int] = Recent()
    data, runs = bytes(range(256)), []

    def compute() -> int:
        runs.append(1)
        return len(runs)

    assert [known.get(data, compute) for _ in range(3)] == [1, 1, 1]
    assert known.get(bytes(bytearray(data)), compute) == 2


def test_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the number nor the size of what is kept alive grows without end; what was used last stays."""
    monkeypatch.setattr(recent, "_MOST", 3)
    monkeypatch.setattr(recent, "_MOST_BYTES", 100)
    known: Recent[bytes] = Recent()
    small = [bytes([n]) * 10 for n in range(5)]
    for data in (small[0], small[1], small[0], small[2], small[3]):
        known.get(data, lambda data=data: data)  # type: ignore[misc]
    assert known.get(small[0], lambda: b"new") == small[0]
    assert known.get(small[1], lambda: b"new") == b"new"
    large = b"l" * 95
    known.get(large, lambda: large)
    assert known.get(small[0], lambda: b"new") == b"new", "the large one took the room of the others"
    huge = b"h" * 101
    assert [known.get(huge, lambda: b"a"), known.get(huge, lambda: b"b")] == [b"a", b"b"]


def test_a_failure_is_not_kept() -> None:
    """What raised is tried again."""
    known: Recent[int] = Recent()
    data = b"data"
    with pytest.raises(ZeroDivisionError):
        known.get(data, lambda: 1 // 0)
    assert known.get(data, lambda: 7) == 7


def test_digests_and_models() -> None:
    """A changed copy has a digest and a content of its own; a buffer that can change is never remembered."""
    data = classifier()
    assert read_model(data) is read_model(data)
    changed = bytearray(data)
    before = read_model(changed)
    changed[8] ^= 0  # still the same content, but another moment
    assert read_model(changed) is not before
    large = bytes(1 << 17)
    digest = sha256(large)
    other = bytearray(large)
    other[-1] = 1
    assert sha256(bytes(other)) != digest == sha256(large)
