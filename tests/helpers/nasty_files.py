"""Files that break other tools: their bytes, and the result of reading them.

Each case holds either the exact rows that reading returns, or words of the error that refuses the file.
`write_nasty_files.py` writes them into a folder; tests/data/test_nasty_files.py reads each of them.
"""

import gzip
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyarrow import parquet

LONG = "long words " * 15_000
"""165,000 characters, more than the csv module's own limit of 131,072."""

HUGE = "a megabyte of words, " * 50_000


@dataclass(frozen=True)
class Case:
    """One file."""

    name: str
    content: bytes
    rows: Sequence[tuple[str, Any]] | None = None
    """(text, label) of each row; None if the file is refused."""

    refused: tuple[str, ...] = ()
    """Words that the error must contain, among them the line at fault."""

    flags: dict[str, Any] = field(default_factory=dict)
    """Arguments for `read_dataset`."""


def read(name: str, content: str | bytes, rows: Iterable[tuple[str, Any]], **flags: Any) -> Case:
    """A file that is read correctly."""
    return Case(name, content.encode() if isinstance(content, str) else content, tuple(rows), flags=flags)


def refuse(name: str, content: str | bytes, *words: str, **flags: Any) -> Case:
    """A file that is refused with these words."""
    return Case(name, content.encode() if isinstance(content, str) else content, None, words, flags)


AB = (("a", "1"), ("b", "2"))
UMLAUTS = (("Grüße, ça va? naïve", "x"), ("plain", "y"))
TABLE = 'text,label\n"Grüße, ça va? naïve",x\nplain,y\n'

DELIMITED = [
    # encodings
    read("utf8.csv", TABLE, UMLAUTS),
    read("bom.csv", b"\xef\xbb\xbf" + TABLE.encode(), UMLAUTS),
    refuse("two_boms.csv", b"\xef\xbb\xbf\xef\xbb\xbf" + TABLE.encode(), "line 1", "byte order mark"),
    read("utf16.csv", TABLE.encode("utf-16"), UMLAUTS, encoding="utf-16"),
    read("utf16_le_no_bom.csv", TABLE.encode("utf-16-le"), UMLAUTS, encoding="utf-16-le"),
    refuse("utf16_not_named.csv", TABLE.encode("utf-16"), "line 1", "0xff", "--encoding"),
    refuse("utf16_le_not_named.csv", "text,label\na,1\n".encode("utf-16-le"), "NUL", "--encoding utf-16"),
    refuse("utf16_without_mark.csv", TABLE.encode("utf-16-le"), "byte order", "--encoding", encoding="utf-16"),
    read("utf32.csv", TABLE.encode("utf-32"), UMLAUTS, encoding="utf-32"),
    read("latin1.csv", TABLE.encode("latin-1"), UMLAUTS, encoding="latin-1"),
    refuse("latin1_not_named.csv", TABLE.encode("latin-1"), "line 2", "0xfc", "--encoding"),
    read("cp1252.csv", "text,label\n“quoted” – €5,x\n".encode("cp1252"), [("“quoted” – €5", "x")], encoding="cp1252"),
    refuse("cp1252_not_named.csv", "text,label\n“quoted” – €5,x\n".encode("cp1252"), "line 2", "0x93", "--encoding"),
    read("gb18030.csv", "text,label\n酒店很好,正\n".encode("gb18030"), [("酒店很好", "正")], encoding="gb18030"),
    refuse("broken_utf8.csv", b"text,label\nok,1\nbr\xc3(ken,2\n", "line 3", "0xc3", "--encoding"),
    refuse("cut_within_a_character.csv", "text,label\nok,1\nété".encode()[:-1], "line 3", "--encoding"),
    refuse("no_such_encoding.csv", TABLE, "utf-9", "--encoding", encoding="utf-9"),
    read("chinese.csv", "文本,标签\n房间太小。,差\n位置很好，交通方便,好\n", [("房间太小。", "差"), ("位置很好，交通方便", "好")], text="文本", label="标签"),
    read("every_script.csv", "text,label\nสวัสดีครับ,th\nこんにちは世界,ja\nनमस्ते,hi\nمرحبا,ar\n👍🏽👨‍👩‍👧,e\n",
         [("สวัสดีครับ", "th"), ("こんにちは世界", "ja"), ("नमस्ते", "hi"), ("مرحبا", "ar"), ("👍🏽👨‍👩‍👧", "e")]),
    # line ends
    read("crlf.csv", "text,label\r\na,1\r\nb,2\r\n", AB),
    read("mixed_line_ends.csv", "text,label\r\na,1\nb,2\r\n", AB),
    read("no_last_line_end.csv", "text,label\na,1\nb,2", AB),
    refuse("cr_alone.csv", "text,label\ra,1\rb,2\r", "carriage return"),
    refuse("cr_alone_in_a_field.csv", "text,label\na\rb,1\n", "line 2", "carriage return", "quote"),
    read("quoted_cr.csv", 'text,label\n"a\rb",1\n', [("a\rb", "1")]),
    read("line_separators.csv", "text,label\na\u2028b\x85c\x0bd,1\n", [("a\u2028b\x85c\x0bd", "1")]),
    read("blank_last_lines.csv", "text,label\na,1\nb,2\n\n\n", AB),
    refuse("blank_line_within.csv", "text,label\na,1\n\nb,2\n", "line 3", "blank line"),
    # quotes and delimiters
    read("embedded_everything.csv", 'text,label\n"one\ntwo, ""three""\r\nfour",1\nb,2\n', [('one\ntwo, "three"\r\nfour', "1"), ("b", "2")]),
    read("quotes_within.csv", 'text,label\nsay "hi" to her,1\n', [('say "hi" to her', "1")]),
    refuse("text_after_quote.csv", 'text,label\n"say" hi,1\n', "line 2", "closing quote"),
    refuse("unclosed_quote.csv", 'text,label\na,1\n"b,2\nc,3\n', "line 3", "never closed"),
    refuse("stray_quote_pairs_up.csv", 'text,label\n"a,1\nb",2\n"c" d,3\n', "line 4", "closing quote"),
    read("single_quotes_are_text.csv", "text,label\n'a,1\n", [("'a", "1")]),
    read("backslash_is_text.csv", 'text,label\n"a\\",1\n', [("a\\", "1")]),
    read("spaces_stay.csv", "text,label\n  a  , 1\n", [("  a  ", " 1")]),
    read("semicolon.csv", "text;label\na, b;1\n", [("a, b", "1")], delimiter=";"),
    refuse("semicolon_not_named.csv", "text;label\na;1\n", "line 1", "no column 'text'", "--delimiter"),
    read("pipe.csv", "text|label\na, b|1\n", [("a, b", "1")], delimiter="|"),
    read("tabs.tsv", "text\tlabel\na, b\t1\n", [("a, b", "1")]),
    refuse("tabs_named.csv", "text\tlabel\na\t1\n", "line 1", "--delimiter"),
    refuse("delimiter_of_two.csv", "text;;label\na;;1\n", "delimiter", "--quoting none", delimiter=";;"),
    # quotes that are text, or seem to be something else
    read("glue.tsv", 'text\tlabel\n"so\t1\nit" is\t2\n', [('"so', "1"), ('it" is', "2")], quoting="none"),
    read("joined_rows.tsv", 'text\tlabel\n"so\t1\nit is"\t2\n', [("so\t1\nit is", "2")]),
    refuse("glue_not_named.tsv", 'text\tlabel\n"so" it is\t1\n', "line 2", "closing quote", "--quoting none"),
    refuse("tab_within.tsv", "text\tlabel\na\tb\t1\n", "line 2", "too long", "--quoting none", quoting="none"),
    refuse("quote_after_a_space.csv", 'label,text\ngood, "one line\n', "line 2", "quote after a space"),
    refuse("field_after_a_space.csv", 'id,text,label\n1, "a, b"\n', "line 2", "quote after a space"),
    read("quote_within_after_a_space.csv", 'label,text\n1, "hi" she said\n', [(' "hi" she said', "1")]),
    read("marks_between.txt", '101_!_a "b\n', [('a "b', "101")], delimiter="_!_", quoting="none", no_header=("label", "text")),
    read("tabs.txt", "text\tlabel\na\t1\nb\t2\n", AB, delimiter="\t"),
    refuse("lines.txt", "a film\n", "--delimiter", "--no-header", "stdin"),
    read("excel.csv", "sep=;\r\ntext;label\r\na;1\r\nb;2\r\n", AB),
    refuse("excel_named_otherwise.csv", "sep=;\ntext;label\n", "line 1", "--delimiter ';'", delimiter=","),
    # rows and headers
    refuse("extra_comma.csv", "text,label\na, really,1\nb, too,2\n", "line 2", "too long", "Quote"),
    refuse("extra_comma_once.csv", "text,label\na,1\nb, too,2\n", "line 3", "too long", "Quote"),
    refuse("short_row.csv", "text,label,id\na,1,7\nb,2\n", "line 3", "too short"),
    refuse("trailing_comma.csv", "text,label\na,1,\n", "line 2", "too long"),
    refuse("same_name_twice.csv", "text,label,text\na,1,b\n", "line 1", "'text' occurs twice"),
    read("one_name_empty.csv", ",text,label\n0,a,1\n1,b,2\n", AB),
    read("two_names_empty.csv", ",,text,label\n0,0,a,1\n", [("a", "1")]),
    refuse("no_header.csv", "a,1\nb,2\n", "line 1", "no column 'text'", "names"),
    read("names_given.csv", "a,1\nb,2\n", AB, no_header=("text", "label")),
    refuse("names_given_twice.csv", "text,label\na,1\n", "line 1", "Leave --no-header out", no_header=("text", "label")),
    refuse("first_row_for_names.csv", "a film that one has to see,1\n", "line 1", "looks like a row", "--no-header text,label"),
    read("spare_columns.csv", "text,label,,,\na,1,,,\nb,2,x,,\n", AB),
    refuse("label_misspelled.csv", "text,lable\na,1\n", "'label'", "'lable'"),
    refuse("empty.csv", "", "empty"),
    refuse("only_bom.csv", b"\xef\xbb\xbf", "empty"),
    refuse("header_only.csv", "text,label\n", "no row"),
    refuse("nul.csv", b"text,label\na\0b,1\n", "line 2", "NUL"),
    read("long_field.csv", f"text,label\n{LONG},1\nb,2\n", [(LONG, "1"), ("b", "2")]),
    read("megabyte.csv", f'text,label\n"{HUGE}",1\nb,2\n', [(HUGE, "1"), ("b", "2")]),
    # values
    read("na_is_text.csv", "text,label\nNA,NA\nnull,null\nNone,None\nnan,NaN\n", [("NA", "NA"), ("null", "null"), ("None", "None"), ("nan", "NaN")]),
    read("empty_texts.csv", 'text,label\n,1\n"",2\n', [("", "1"), ("", "2")]),
    read("labels_that_look_alike.csv", "text,label\na,01\nb,1\nc,1.0\nd,true\ne,True\nf,1e0\n",
         [("a", "01"), ("b", "1"), ("c", "1.0"), ("d", "true"), ("e", "True"), ("f", "1e0")]),
    read("labels_in_case_and_space.csv", "text,label\na,spam\nb,Spam\nc,spam \nd,ＳＰＡＭ\n", [("a", "spam"), ("b", "Spam"), ("c", "spam "), ("d", "ＳＰＡＭ")]),
    read("type_changes_late.csv", "text,label\n" + "a,1\n" * 5000 + "b,yes\n", [*[("a", "1")] * 5000, ("b", "yes")]),
    read("big_numbers.csv", "text,label\n12345678901234567890123,0x1F\n", [("12345678901234567890123", "0x1F")]),
    refuse("empty_label.csv", "text,label\na,1\nb,\nc,2\n", "line 3", "label", "--drop-unlabelled"),
    read("empty_label_dropped.csv", "text,label\na,1\nb,\nc,2\n", [("a", "1"), ("c", "2")], drop_unlabelled=True),
    read("formulas_are_text.csv", "text,label\n=1+1,x\n+49 30,y\n", [("=1+1", "x"), ("+49 30", "y")]),
    read("indicators.csv", "text,a,b\none,0,1\ntwo,1.0,false\n", [("one", ("b",)), ("two", ("a",))], label=None, labels=("a", "b")),
    refuse("indicators_of_something_else.csv", "text,a,b\none,0,1\ntwo,2,0\n", "line 3", "'a'", "0 or 1", label=None, labels=("a", "b")),
    read("separated.csv", "text,label\none,joy|anger\ntwo,\nthree,joy\n", [("one", ("anger", "joy")), ("two", ()), ("three", ("joy",))], label_separator="|"),
    refuse("separated_twice.csv", "text,label\none,joy|joy\n", "line 2", "twice", label_separator="|"),
    refuse("separated_empty.csv", "text,label\none,joy||anger\n", "line 2", "empty label", label_separator="|"),
]  # fmt: skip

JSON = [
    read("plain.jsonl", '{"text": "a", "label": "1"}\n{"text": "b", "label": "2"}\n', AB),
    read("bom.jsonl", b'\xef\xbb\xbf{"text": "a", "label": "1"}\n', [("a", "1")]),
    read("crlf.jsonl", '{"text": "a", "label": 1}\r\n{"text": "b", "label": 2}\r\n', AB),
    read("escapes.jsonl", r'{"text": "a\n\"b\" é 👍 \\", "label": "x"}' + "\n", [('a\n"b" é 👍 \\', "x")]),
    read("numbers.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": 1.0}\n{"text": "c", "label": 12345678901234567890}\n{"text": "d", "label": 1e0}\n',
         [("a", "1"), ("b", "1.0"), ("c", "12345678901234567890"), ("d", "1e0")]),
    read("booleans.jsonl", '{"text": "a", "label": true}\n{"text": "b", "label": false}\n', [("a", "true"), ("b", "false")]),
    read("order_of_fields.jsonl", '{"text": "a", "label": "1"}\n{"label": "2", "text": "b"}\n', AB),
    read("more_fields_later.jsonl", '{"text": "a", "label": "1"}\n{"text": "b", "label": "2", "id": {"x": [1]}}\n', AB),
    refuse("ragged.jsonl", '{"text": "a", "label": "1"}\n{"text": "b"}\n', "line 2", "no field 'label'"),
    refuse("null_text.jsonl", '{"text": "a", "label": "1"}\n{"text": null, "label": "2"}\n', "line 2", "'text'", "null"),
    refuse("null_label.jsonl", '{"text": "a", "label": "1"}\n{"text": "b", "label": null}\n', "line 2", "--drop-unlabelled"),
    refuse("nan_text.jsonl", '{"text": NaN, "label": "1"}\n', "line 1", "NaN"),
    refuse("nested_text.jsonl", '{"text": {"body": "a"}, "label": "1"}\n', "line 1", "nested object"),
    refuse("list_text.jsonl", '{"text": ["a"], "label": "1"}\n', "line 1", "list"),
    read("lists.jsonl", '{"text": "a", "label": ["x", "y"]}\n{"text": "b", "label": []}\n{"text": "c", "label": ["y", 1.0]}\n',
         [("a", ("x", "y")), ("b", ()), ("c", ("1.0", "y"))]),
    refuse("lists_then_a_word.jsonl", '{"text": "a", "label": ["x"]}\n{"text": "b", "label": "x"}\n', "line 2", "list"),
    refuse("a_word_then_lists.jsonl", '{"text": "a", "label": "x"}\n' * 5000 + '{"text": "b", "label": ["x"]}\n', "line 5001", "list"),
    refuse("list_of_null.jsonl", '{"text": "a", "label": ["x", null]}\n', "line 1", "null"),
    refuse("list_of_lists.jsonl", '{"text": "a", "label": [["x"]]}\n', "line 1", "list"),
    refuse("half_a_last_line.jsonl", '{"text": "a", "label": "1"}\n{"text": "b", "la', "line 2", "written completely"),
    refuse("same_name_twice.jsonl", '{"text": "a", "label": "1", "label": "2"}\n', "line 1", "'label' occurs twice"),
    refuse("array_of_rows.jsonl", '[{"text": "a", "label": "1"}]\n', "line 1", "not an object"),
    refuse("pretty_printed.jsonl", '{\n  "text": "a",\n  "label": "1"\n}\n', "line 1", "JSON"),
    refuse("blank_line_within.jsonl", '{"text": "a", "label": "1"}\n\n{"text": "b", "label": "2"}\n', "line 2", "blank"),
    refuse("half_a_surrogate.jsonl", '{"text": "a\\ud83d", "label": "1"}\n', "line 1", "surrogate"),
    refuse("nul.jsonl", b'{"text": "a\0b", "label": "1"}\n', "line 1"),
    refuse("python_words.jsonl", "{'text': 'a', 'label': None}\n", "line 1", "JSON"),
    refuse("deep.jsonl", '{"text": ' + "[" * 100_000 + "]" * 100_000 + ', "label": "1"}\n', "line 1", "deep"),
    refuse("empty.jsonl", "", "empty"),
    refuse("latin1_not_named.jsonl", '{"text": "é", "label": "1"}\n'.encode("latin-1"), "line 1", "0xe9", "--encoding"),
    read("utf16.jsonl", '{"text": "é", "label": "1"}\n'.encode("utf-16"), [("é", "1")], encoding="utf-16"),
    refuse("half_a_surrogate_in_a_list.jsonl", '{"text": "a", "label": ["x", "\\ud83d"]}\n', "line 1", "surrogate"),
    read("lists_with_names.jsonl", '["a", 1]\n["b", 2]\n', AB, no_header=("text", "label")),
    refuse("lists_without_names.jsonl", '["a", 1]\n', "line 1", "--no-header text,label"),
    refuse("utf16_not_named.jsonl", '{"text": "a", "label": "1"}\n'.encode("utf-16-le"), "--encoding utf-16-le"),
    read("clinc.json", '{"val": [], "train": [["a", "1"], ["b", "2"]]}', AB, json_path="train", no_header=("text", "label")),
    refuse("clinc_not_named.json", '{"val": [], "train": [["a", "1"], ["b", "2"]]}', "--json-path train"),
    refuse("lines.json", '{"text": "a", "label": "1"}\n{"text": "b", "label": "2"}\n', "one on each line", ".jsonl"),
    refuse("columns.json", '{"text": ["a"], "label": ["1"]}', "In Python:", "columns.jsonl"),
    refuse("cut_off.json", '[{"text": "a", "label": "1"}, {"text": ', "written completely"),
    read("rows.json", '[{"text": "a", "label": "1"}]', [("a", "1")]),
]  # fmt: skip


def _parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


_TWO = ["a", "b"]
PARQUET = [
    read("strings.parquet", _parquet(text=_TWO, label=["1", "2"]), AB),
    read("large_strings.parquet", _parquet(text=pa.array(_TWO, pa.large_string()), label=pa.array(["1", "2"], pa.string_view())), AB),
    read("dictionary.parquet", _parquet(text=_TWO, label=pa.array(["2", "1"]).dictionary_encode().take(pa.array([1, 0]))), AB),
    read("integers.parquet", _parquet(text=_TWO, label=pa.array([1, 2], pa.int8())), AB),
    read("big_integers.parquet", _parquet(text=_TWO, label=pa.array([2**63, 2**64 - 1], pa.uint64())), [("a", str(2**63)), ("b", str(2**64 - 1))]),
    read("floats.parquet", _parquet(text=_TWO, label=[1.0, 0.1]), [("a", "1.0"), ("b", "0.1")]),
    read("booleans.parquet", _parquet(text=_TWO, label=[True, False]), [("a", "true"), ("b", "false")]),
    read("decimals.parquet", _parquet(text=_TWO, label=pa.array([1, 2]).cast(pa.decimal128(21, 2))), [("a", "1.00"), ("b", "2.00")]),
    read("lists.parquet", _parquet(text=_TWO, label=[["x", "y"], []]), [("a", ("x", "y")), ("b", ())]),
    read("lists_of_numbers.parquet", _parquet(text=_TWO, label=[[3], [3, 27]]), [("a", ("3",)), ("b", ("27", "3"))]),
    refuse("list_with_null.parquet", _parquet(text=_TWO, label=[["x", None], []]), "row 1", "null"),
    refuse("list_is_null.parquet", _parquet(text=_TWO, label=[["x"], None]), "row 2", "--drop-unlabelled"),
    refuse("list_texts.parquet", _parquet(text=[["a"], ["b"]], label=["1", "2"]), "'text'", "list"),
    refuse("structs.parquet", _parquet(text=_TWO, label=[{"x": 1}, {"x": 2}]), "'label'", "struct"),
    refuse("bytes.parquet", _parquet(text=[b"a", b"b"], label=["1", "2"]), "'text'", "binary"),
    refuse("times.parquet", _parquet(text=_TWO, label=pa.array([0, 1], pa.timestamp("s"))), "'label'", "timestamp"),
    refuse("null_text.parquet", _parquet(text=["a", None], label=["1", "2"]), "row 2", "'text'", "null"),
    refuse("null_label.parquet", _parquet(text=_TWO, label=["1", None]), "row 2", "--drop-unlabelled"),
    refuse("nan_label.parquet", _parquet(text=_TWO, label=[1.0, float("nan")]), "row 2", "--drop-unlabelled"),
    refuse("all_null.parquet", _parquet(text=_TWO, label=pa.nulls(2)), "empty in all"),
    refuse("no_rows.parquet", _parquet(text=pa.array([], pa.string()), label=pa.array([], pa.string())), "no row"),
    refuse("no_such_column.parquet", _parquet(texts=_TWO, label=["1", "2"]), "'text'", "'texts'"),
    refuse("cut_off.parquet", _parquet(text=_TWO, label=["1", "2"])[:-20], "Parquet"),
    refuse("a_csv.parquet", "text,label\na,1\n", "Parquet"),
    refuse("compressed.parquet.gz", gzip.compress(_parquet(text=_TWO, label=["1", "2"])), "decompress"),
]  # fmt: skip

_CSV = b"text,label\na,1\nb,2\n"
_LINES = b'{"text": "a", "label": "1"}\n{"text": "b", "label": "2"}\n'


def _zstd(content: bytes) -> bytes:
    compressed: bytes = pa.compress(content, "zstd", asbytes=True)
    return compressed


COMPRESSED = [
    read("compressed.csv.gz", gzip.compress(_CSV), AB),
    read("compressed.tsv.gz", gzip.compress(_CSV.replace(b",", b"\t")), AB),
    read("compressed.jsonl.gz", gzip.compress(_LINES), AB),
    read("members.csv.gz", gzip.compress(_CSV[:13]) + gzip.compress(_CSV[13:]), AB),
    read("compressed.csv.zst", _zstd(_CSV), AB),
    read("compressed.ndjson.zst", _zstd(_LINES), AB),
    read("frames.csv.zst", _zstd(_CSV[:13]) + _zstd(_CSV[13:]), AB),
    read("latin1.csv.gz", gzip.compress(TABLE.encode("latin-1")), UMLAUTS, encoding="latin-1"),
    refuse("bad_row.csv.gz", gzip.compress(b"text,label\na,1\nb,c,2\n"), "line 3", "too long"),
    refuse("cut_off.csv.gz", gzip.compress(_CSV * 1000)[:-12], "gzip", "written completely"),
    refuse("cut_off.csv.zst", _zstd(_CSV * 1000)[:-4], "zstd", "written completely"),
    refuse("not_compressed.csv.gz", _CSV, "gzip"),
    refuse("not_compressed.csv.zst", _CSV, "zstd"),
    refuse("compressed_not_named.csv", gzip.compress(_CSV), "compressed by gzip", ".csv.gz"),
    refuse("sheet.xlsx", b"PK\x03\x04", "read_excel"),
    refuse("sheet_named.csv", b"PK\x03\x04", "Excel workbook", "read_excel"),
    refuse("pointer.csv", "version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    refuse("page.csv", "<!DOCTYPE html>\n<html>", "web page"),
    refuse("zipped.csv.zip", b"PK\x03\x04", "'.csv.zip'"),
]

FOLDERS: list[tuple[str, list[Case], Case]] = [
    (
        "shards",
        [
            Case("part-0.csv", b"text,label\na,1\n"),
            Case("part-1.csv.gz", gzip.compress(b"text,label\nb,2\n")),
            Case("_SUCCESS", b""),
            Case(".hidden.csv", b"x"),
        ],
        read("shards", b"", AB),
    ),
    (
        "json_shards",
        [Case("0.jsonl", _LINES[:28]), Case("1.jsonl", b'{"label": "2", "text": "b"}\n')],
        read("json_shards", b"", AB),
    ),
    (
        "bad_shard",
        [Case("0.csv", _CSV), Case("1.csv", b"text,label\nc,d,3\n")],
        refuse("bad_shard", b"", "1.csv, line 2", "too long"),
    ),
    (
        "other_columns",
        [Case("0.csv", _CSV), Case("1.csv", b"text,lable\nc,3\n")],
        refuse("other_columns", b"", "1.csv", "'label'", "columns"),
    ),
    (
        "several_formats",
        [Case("0.csv", _CSV), Case("1.jsonl", _LINES)],
        refuse("several_formats", b"", "0.csv", "1.jsonl", "several formats"),
    ),
    (
        "readme_within",
        [Case("0.csv", _CSV), Case("notes.txt", b"hi")],
        refuse("readme_within", b"", "notes.txt", ".txt"),
    ),
    ("classes", [Case("pos/1", b"a"), Case("neg/2.txt", b"b\n")], read("classes", b"", [("b\n", "neg"), ("a", "pos")])),
    ("classes_in_latin1", [Case("pos/1", b"\xe9")], refuse("classes_in_latin1", b"", "pos/1, line 1", "--encoding")),
    (
        "classes_too_deep",
        [Case("a/1", b"x"), Case("a/b/1", b"x")],
        refuse("classes_too_deep", b"", "folder of a class"),
    ),
    ("nothing_within", [], refuse("nothing_within", b"", "no file")),
]

CASES = [*DELIMITED, *JSON, *PARQUET, *COMPRESSED]
