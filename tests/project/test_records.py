"""What is known of the last builds survives killed writers, and notices every change of a bundle's files."""

import os
from pathlib import Path

from edgepack.project.records import FILE, Record, Records, mark_of


def test_records_survive_a_killed_writer(tmp_path: Path) -> None:
    """Half a line, and lines of anything else, are ignored; the next line is whole."""
    Records(tmp_path).add(Record("a", "key-1", {"model": "1"}))
    with (tmp_path / FILE).open("ab") as stream:
        stream.write(b'[1]\n{"cell": "b"}\n{"cell": 3, "key": "x"}\n\xff\xfe\n{"cell": "a", "key": "ke')
    records = Records(tmp_path)
    assert records.by_cell == {"a": Record("a", "key-1", {"model": "1"})}
    records.add(Record("a", "key-2", seconds=2.5))
    assert Records(tmp_path).by_cell == {"a": Record("a", "key-2", seconds=2.5)}


def test_the_file_stays_small(tmp_path: Path) -> None:
    for number in range(300):
        Records(tmp_path).add(Record("a", f"key-{number}"))
    assert len((tmp_path / FILE).read_bytes().splitlines()) < 200
    assert Records(tmp_path).by_cell["a"].key == "key-299"


def test_the_mark_of_a_bundle(tmp_path: Path) -> None:
    """It changes with names, sizes and times, and is empty without a folder."""
    folder = tmp_path / "bundle"
    assert mark_of(folder) == ""
    folder.mkdir()
    (folder / "a").write_text("x")
    marks = [mark_of(folder)]
    os.utime(folder / "a", (1, 1))
    marks.append(mark_of(folder))
    (folder / "b").write_text("x")
    marks.append(mark_of(folder))
    (folder / "b").rename(folder / "c")
    marks.append(mark_of(folder))
    (folder / "c").unlink()
    assert mark_of(folder) == marks[1]
    assert len(set(marks)) == 4
