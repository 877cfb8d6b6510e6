"""Sources of every kind become the same texts; what cannot be read says where and why."""

import gzip
import json
import lzma
import time

import datasets
import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from statprune.calibration.records import JOIN, from_memory, read
from statprune.errors import DataError


class ChatTokenizer:
    chat_template = "a template"

    def apply_chat_template(self, chat, tokenize):
        assert tokenize is False
        return "".join(f"<{turn['role']}>{turn['content']}" for turn in chat)


CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]


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


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_the_only_column_of_strings_is_found(tmp_path, kind):
    path = write_as(tmp_path / f"rows.{kind}", [{"n": 1, "body": "a"}, {"n": 2, "body": "b"}])
    records = read(str(path))
    assert list(records.texts) == ["a", "b"]
    assert records.description["text_column"] == "body"


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_two_columns_are_pairs_and_two_candidates_are_an_error(tmp_path, kind):
    path = write_as(tmp_path / f"rows.{kind}", [{"q": "a", "p": "b"}, {"q": "c", "p": "d"}])
    records = read(str(path), text_column=("p", "q"))
    assert list(records.texts) == [("b", "a"), ("d", "c")]
    assert records.description["text_column"] == ["p", "q"]
    with pytest.raises(DataError, match=r"among: q, p"):
        read(str(path))
    with pytest.raises(DataError, match=r"no column 'x'.*q, p"):
        read(str(path), text_column="x")


@pytest.mark.parametrize("packing", ["", ".gz", ".xz", ".zst"])
@pytest.mark.parametrize("name", ["book.txt", "book", "book.md"])
def test_plain_text_is_one_record_verbatim(tmp_path, name, packing):
    text = " first \r\n\n second\u2028\n"
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}[packing]
    (tmp_path / (name + packing)).write_bytes(pack(text.encode()))
    records = read(str(tmp_path / (name + packing)))
    assert list(records.texts) == [text]
    assert records.layout == "document"


@pytest.mark.parametrize("name", ["wiki.test.raw", "wiki.test.tokens"])
def test_the_three_layouts_of_wikitext_join_to_one_text(tmp_path, name):
    # As on the hub: lines keep their newline, blank lines (a space in the file) are empty rows.
    rows = ["", " = Title = \n", "", " Some text . \n", " More\u2028text . \n", ""]
    (tmp_path / name).write_bytes("".join(row or " \n" for row in rows).encode())
    (tmp_path / "joined.txt").write_bytes("\n\n".join(rows).encode())
    hub = from_memory(datasets.Dataset.from_dict({"text": rows}))
    raw = read(str(tmp_path / name))
    joined = read(str(tmp_path / "joined.txt"))
    assert list(raw.texts) == list(hub.texts) == rows
    assert raw.layout == "wikitext"
    assert JOIN.join(raw.texts) == JOIN.join(joined.texts) == "\n\n".join(rows)


def test_a_last_line_without_newline_is_kept(tmp_path):
    (tmp_path / "a.raw").write_bytes(b" x \n \n y")
    assert list(read(str(tmp_path / "a.raw")).texts) == [" x \n", "", " y"]


def test_a_folder_is_read_in_the_order_of_names(tmp_path):
    for name, text in (("b", "2"), ("a", "1"), ("c", "3")):
        write_as(tmp_path / f"{name}.jsonl", [{"text": text}])
    (tmp_path / "readme.txt").write_text("not data")
    records = read(str(tmp_path))
    assert list(records.texts) == ["1", "2", "3"]
    assert records.description["files"] == ["a.jsonl", "b.jsonl", "c.jsonl"]


def test_a_split_of_a_folder_picks_its_files(tmp_path):
    for name in ("train-00000-of-2.parquet", "train-00001-of-2.parquet", "test.parquet"):
        write_as(tmp_path / name, [{"text": name}])
    records = read(f"{tmp_path}@train")
    assert list(records.texts) == ["train-00000-of-2.parquet", "train-00001-of-2.parquet"]
    assert records.description["split"] == "train"
    with pytest.raises(DataError, match=r"'validation' \(there: test\.parquet, train-00000"):
        read(f"{tmp_path}@validation")


def test_a_folder_of_prose_and_a_folder_of_two_formats(tmp_path):
    (tmp_path / "b.txt").write_text("B")
    (tmp_path / "a.txt").write_text("A")
    records = read(str(tmp_path))
    assert (list(records.texts), records.layout) == (["A", "B"], "document")
    (tmp_path / "c.raw").write_text("C\n")
    with pytest.raises(DataError, match=r"several formats \(\.raw, \.txt\)"):
        read(str(tmp_path))


def test_saved_data_sets_are_read_with_their_splits(tmp_path):
    train, test = (
        datasets.Dataset.from_dict({"text": [name], "id": [0]}) for name in ("train row", "test row")
    )
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / "both")
    train.save_to_disk(tmp_path / "one")
    assert list(read(str(tmp_path / "both")).texts) == ["train row"]
    records = read(f"{tmp_path / 'both'}@test")
    assert (list(records.texts), records.description["split"]) == (["test row"], "test")
    assert list(read(str(tmp_path / "one")).texts) == ["train row"]
    with pytest.raises(DataError, match=r"no split 'dev' \(there: train, test\)"):
        read(f"{tmp_path / 'both'}@dev")
    with pytest.raises(DataError, match="without split 'dev'"):
        read(f"{tmp_path / 'one'}@dev")


def test_a_selected_and_shuffled_data_set_keeps_its_own_order():
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c", "d"]}).select([3, 1])
    assert list(from_memory(data).texts) == ["d", "b"]


def test_chats_are_rendered_by_the_template(tmp_path):
    path = write_as(tmp_path / "chat.jsonl", [{"messages": CHAT}])
    assert list(read(str(path), tokenizer=ChatTokenizer()).texts) == ["<user>Hi<assistant>Ho"]
    path = write_as(tmp_path / "talk.parquet", [{"id": "x", "talk": CHAT}])
    records = read(str(path), text_column="talk", tokenizer=ChatTokenizer())
    assert list(records.texts) == ["<user>Hi<assistant>Ho"]
    assert list(from_memory([CHAT], tokenizer=ChatTokenizer()).texts) == ["<user>Hi<assistant>Ho"]


def test_chats_need_a_tokenizer_with_a_template():
    plain = ChatTokenizer()
    plain.chat_template = None
    with pytest.raises(DataError, match=r"no chat template; set tokenizer\.chat_template"):
        from_memory([CHAT], tokenizer=plain)
    with pytest.raises(DataError, match="tokenizer is missing"):
        from_memory([{"messages": CHAT}])


def test_a_refusal_of_the_template_names_the_record():
    def refuse(chat, tokenize):
        raise ValueError("roles must\nalternate")

    tokenizer = ChatTokenizer()
    tokenizer.apply_chat_template = refuse
    with pytest.raises(DataError, match=r"record 1: .*ValueError: roles must alternate"):
        from_memory([CHAT], tokenizer=tokenizer)


def test_lists_in_memory():
    assert list(from_memory(["a", "b"]).texts) == ["a", "b"]
    assert list(from_memory([("a", "b"), ["c", "d"]]).texts) == [("a", "b"), ("c", "d")]
    assert list(from_memory([[1, 2], [3]]).texts) == [(1, 2), (3,)]
    assert list(from_memory([{"text": "a", "n": 1}]).texts) == ["a"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "0 records"),
        (["", " \n"], "2 records, but no text"),
        (["a", ("b", "c")], "pairs and texts are mixed"),
        (["a", None], "record 2: NoneType"),
        ([[1, 2.5]], "record 1: list"),
        ("a text", "str found"),
        ({"train": ["a"]}, "dict found"),
        (7, "int found"),
    ],
)
def test_what_cannot_be_used_from_memory(data, message):
    with pytest.raises(DataError, match=message):
        from_memory(data)


@pytest.mark.parametrize(
    "source", ["./none", "/none/at/all", "none.jsonl", "none.csv.gz", "none.txt", "some/none.raw"]
)
def test_a_missing_file_is_not_looked_for_on_the_hub(source):
    with pytest.raises(DataError, match="no such file"):
        read(source)


@pytest.mark.parametrize("source", ["", "name@", "@train"])
def test_an_incomplete_source(source):
    with pytest.raises(DataError, match="incomplete"):
        read(source)


def test_a_file_has_no_split_and_an_empty_folder_no_data(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(DataError, match="a file has no split 'train'"):
        read(f"{tmp_path / 'a.txt'}@train")
    with pytest.raises(DataError, match=r"no data file \(there: nothing\)"):
        read(str(tmp_path / "sub"))


def test_descriptions_hold_no_absolute_path_and_relative_ones_as_given(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("a")
    monkeypatch.chdir(tmp_path)
    assert read("folder/a.txt").description["source"] == "folder/a.txt"
    assert str(tmp_path) not in json.dumps(read(str(tmp_path / "folder" / "a.txt")).description)


def test_a_hub_data_set_is_loaded_by_name_config_and_split(monkeypatch):
    asked = []

    def load(name, config, split):
        asked.append((name, config, split))
        return datasets.Dataset.from_dict({"text": ["a", ""]})

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda self, name, timeout: None)
    monkeypatch.setattr(datasets, "load_dataset", load)
    records = read("some/data:raw-v1@test")
    read("data")
    assert asked == [("some/data", "raw-v1", "test"), ("data", None, "train")]
    assert list(records.texts) == ["a", ""]
    facts = records.description
    assert (facts["source"], facts["config"], facts["split"]) == ("some/data", "raw-v1", "test")


def test_a_hub_failure_is_one_line_and_fast(monkeypatch):
    def fail(self, name, timeout):
        raise OSError("no network\nat all")

    def never(*args, **kwargs):
        raise AssertionError("load_dataset repeats for half a minute")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", fail)
    monkeypatch.setattr(datasets, "load_dataset", never)
    start = time.perf_counter()
    with pytest.raises(
        DataError, match=r"some/data.*raw.*test.*OSError: no network at all.*local file"
    ) as caught:
        read("some/data:raw@test")
    assert time.perf_counter() - start < 5
    assert "\n" not in str(caught.value)
