"""Every format and packing gives the same texts; a damaged file says where and why."""

import gzip
import json
import lzma

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from statprune.calibration import packed
from statprune.calibration.records import read
from statprune.errors import DataError

TEXTS = ["one\nline", "zwei ü", "", "trois, “quoted”"]


def write_as(path, rows):
    """Rows in the format of the path's first extension."""
    kind = path.name.split(".")[1]
    if kind == "jsonl":
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    elif kind == "json":
        content = json.dumps(rows).encode()
    elif kind == "parquet":
        sink = pa.BufferOutputStream()
        parquet.write_table(pa.Table.from_pylist(rows), sink)
        content = sink.getvalue().to_pybytes()
    else:
        mark = "\t" if kind == "tsv" else ","
        quoted = [
            [f'"{row[name]}"' if isinstance(row[name], str) else str(row[name]) for name in row]
            for row in rows
        ]
        content = "\n".join(mark.join(line) for line in [list(rows[0]), *quoted]).encode()
    pack = {"gz": gzip.compress, "xz": lzma.compress, "zst": zstandard.compress}
    path.write_bytes(pack.get(path.suffix[1:], bytes)(content))
    return path


@pytest.mark.parametrize("packing", ["", ".gz", ".xz", ".zst"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_every_format_gives_the_same_texts(tmp_path, kind, packing):
    rows = [{"label": i, "text": text} for i, text in enumerate(TEXTS)]
    records = read(str(write_as(tmp_path / f"rows.{kind}{packing}", rows)))
    assert list(records.texts) == TEXTS
    assert records.layout == "records"
    assert records.description["text_column"] == "text"
    assert records.description["records"] == len(TEXTS)
    assert json.loads(json.dumps(records.description)) == records.description
    assert [file.name for file in tmp_path.iterdir()] == [f"rows.{kind}{packing}"]


def test_text_that_looks_like_numbers_stays_text_in_csv(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,n\n007,1\n,2\n2020-01-01,3\n")
    assert list(read(str(path)).texts) == ["007", "", "2020-01-01"]


@pytest.mark.parametrize(
    "content",
    [
        '[{"text": "a"}, {"text": "b"}]',
        '{"version": 1, "data": [{"text": "a"}, {"text": "b"}]}',
        '{"text": "a"}\n{"text": "b"}\n',
        '\ufeff["a", "b"]',
    ],
)
def test_json_comes_in_several_shapes(tmp_path, content):
    path = tmp_path / "rows.json"
    path.write_text(content, encoding="utf-8")
    assert list(read(str(path)).texts) == ["a", "b"]


def test_packed_frames_and_members_are_read_to_the_end(tmp_path):
    (tmp_path / "a.txt.zst").write_bytes(zstandard.compress(b"one ") + zstandard.compress(b"two"))
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one ") + gzip.compress(b"two"))
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress(b"one ") + bytes(8) + lzma.compress(b"two") + bytes(4))
    for packing in ("zst", "gz", "xz"):
        assert read(str(tmp_path / f"a.txt.{packing}")).texts == ["one two"]


def test_frames_that_are_empty_or_for_others_are_skipped(tmp_path):
    skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
    path = tmp_path / "a.txt.zst"
    path.write_bytes(zstandard.compress(b"") + skippable + zstandard.compress(b"one"))
    assert read(str(path)).texts == ["one"]


@pytest.mark.parametrize("behind", [b"garbage", bytes(3), lzma.compress(b"two")[:-4]])
def test_what_follows_a_stream_is_not_lost_silently(tmp_path, behind):
    path = tmp_path / "a.txt.xz"
    path.write_bytes(lzma.compress(b"one ") + behind)
    with pytest.raises(DataError, match="damaged or incomplete"):
        read(str(path))


@pytest.mark.parametrize(
    ("packing", "pack"), [("gz", gzip.compress), ("xz", lzma.compress), ("zst", zstandard.compress)]
)
def test_a_packed_file_that_breaks_off_is_an_error(tmp_path, packing, pack):
    path = tmp_path / f"a.txt.{packing}"
    path.write_bytes(pack(b"some text " * 50_000)[:-6])
    with pytest.raises(DataError, match="damaged or incomplete"):
        read(str(path))


@pytest.mark.parametrize(
    ("packing", "pack"), [("gz", gzip.compress), ("xz", lzma.compress), ("zst", zstandard.compress)]
)
def test_a_packed_file_that_would_fill_the_memory_is_an_error(tmp_path, monkeypatch, packing, pack):
    monkeypatch.setattr(packed, "UNSUSPECTED", 20_000_000)
    path = tmp_path / f"a.txt.{packing}"
    path.write_bytes(pack(b"some text " * 5_000_000))
    assert 100 * path.stat().st_size < 50_000_000
    with pytest.raises(DataError, match="unpacks to more than 20000000 bytes"):
        read(str(path))
    monkeypatch.setattr(packed, "UNSUSPECTED", 50_000_000)
    assert len(read(str(path)).texts[0]) == 50_000_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"ab\xffcd", r"a\.txt, byte 2: 0xff is not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', r"a\.jsonl, byte 24: 0xff"),
        ("a.csv", b"text\nab\xff\n", r"a\.csv, byte 7: 0xff"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": }\n', r"a\.jsonl, line 3: not JSON"),
        ("a.json", b'[\n{"text": "a"},\n oops]', r"a\.json, line 3: not JSON"),
        ("a.json", b'{"a": [1], "b": [2]}', r"2 lists \(a, b\)"),
        ("a.json", b"3", r"int found"),
        ("a.jsonl", b'{"text": "a"}\n[1]\n', r"record 2: list found"),
        ("a.jsonl", b'{"text": "a"}\n{"text": null}\n', r"record 2: column 'text' holds null"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 5}\n', r"record 2: column 'text' holds int '5'"),
        ("a.jsonl", b'{"text": "a"}\n{"other": "b"}\n', r"record 2: column 'text' holds null"),
        ("a.csv", b"text,n\na,1,2\n", r"a\.csv: CSV parse error"),
        ("a.parquet", b"no parquet", r"a\.parquet: not a whole parquet file"),
        ("a.parquet", b"", r"a\.parquet: not a whole parquet file"),
        ("a.csv", b"", r"a\.csv: the file is empty"),
        ("a.csv", b"text\n", r"0 records"),
        ("a.jsonl", b"\n", r"the file is empty"),
        ("a.json", b"[]", r"no records"),
        ("a.txt", b"", r"no text in them"),
        ("a.raw", b" \n \n", r"2 records, but no text"),
    ],
)
def test_what_cannot_be_used_from_a_file(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(str(tmp_path / name))
    assert "\n" not in str(caught.value)
