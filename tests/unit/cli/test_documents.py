import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tamis.cli.documents import read_documents
from tamis.errors import InvalidFieldError, InvalidTextError, MissingFieldError, TamisError

Write = Callable[[str, bytes], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a file and get its name; `-` is standard input."""
    monkeypatch.chdir(tmp_path)

    def written(name: str, data: bytes) -> str:
        if name == "-":
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        else:
            Path(name).write_bytes(data)
        return name

    return written


@pytest.mark.parametrize("name", ["documents.txt", "-"])
@pytest.mark.parametrize(
    ("data", "documents"),
    [
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\ntwo", ["one", "two"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"\n  \none\n\n\ntwo\n", ["one", "two"]),
        (b"\xef\xbb\xbfone\n", ["one"]),
        ("鼓筛\u2028细筛\x0b\n".encode(), ["鼓筛\u2028细筛\x0b"]),
        (b"  indented\tand more \n", ["  indented\tand more "]),
        (b"[1, 2]\n", ["[1, 2]"]),
        (b'{"title": "no text"}\n', ['{"title": "no text"}']),
        (b'one\n{"text": "two"}\n', ["one", '{"text": "two"}']),
        (b"{" * 5_000 + b"\n", ["{" * 5_000]),
        (b"[" * 200_000 + b"\n", ["[" * 200_000]),
    ],
    ids=range(12),
)
def test_a_line_of_plain_text_is_a_document(
    write: Write, name: str, data: bytes, documents: list[str]
) -> None:
    assert read_documents([write(name, data)]) == documents


def test_without_a_name_standard_input_is_read(write: Write) -> None:
    write("-", b"one\n")
    assert read_documents([]) == ["one"]


def test_a_file_whose_first_object_has_a_text_is_jsonl(write: Write) -> None:
    name = write("a.txt", b'\n{"text": "one", "id": 1}\n\n{"tags": [null], "text": "two"}\n')
    assert read_documents([name]) == [{"text": "one", "id": 1}, {"tags": [None], "text": "two"}]


def test_files_follow_each_other_each_in_its_own_form(write: Write) -> None:
    names = [
        write("a.jsonl", b'{"text": "one"}\n'),
        write("-", b"two\n"),
        write("b.txt", b"three\n"),
    ]
    assert read_documents(names) == [{"text": "one"}, "two", "three"]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", MissingFieldError, "no documents in bad.txt: nothing but"),
        (b" \n\t\n", MissingFieldError, "no documents in bad.txt: nothing but"),
        (b"one\n\xff\n", InvalidTextError, "bad.txt is not UTF-8: byte 4"),
        ("one".encode("utf-16"), InvalidTextError, "bad.txt is not UTF-8: byte 0"),
        (b'{"text": "a"}\nb\n', InvalidFieldError, "bad.txt line 2: not a JSON object with"),
        (b'{"text": "a"}\n\n{"id": 1}\n', InvalidFieldError, "bad.txt line 3: not a JSON object"),
        (b'{"text": "a"}\n["text"]\n', InvalidFieldError, "bad.txt line 2: not a JSON object"),
        (b'{"text": 5}\n', InvalidFieldError, "the `text` of bad.txt line 1 must be a string"),
    ],
)
def test_what_cannot_be_read_is_named(
    write: Write, data: bytes, error: type[TamisError], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_documents([write("bad.txt", data)])


@pytest.mark.parametrize(
    ("name", "reason"), [("none.txt", "No such file"), (".", "Is a directory")]
)
def test_a_file_that_cannot_be_opened_is_named_with_the_reason(
    write: Write, name: str, reason: str
) -> None:
    with pytest.raises(MissingFieldError, match=f"cannot read {name}: {reason}"):
        read_documents([name])


def test_a_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(MissingFieldError, match="name a file, or pipe lines in"):
        read_documents([])


@pytest.mark.parametrize("name", ["documents.json", "DOCUMENTS.JSON", "documents.txt", "-"])
@pytest.mark.parametrize(
    ("data", "documents"),
    [
        (b'[\n {"text": "one"},\n {"text": "two"}\n]\n', [{"text": "one"}, {"text": "two"}]),
        (b'["one", {"text": "two", "id": 2}]', ["one", {"text": "two", "id": 2}]),
        (b'\xef\xbb\xbf \n["one\\ntwo", ""]', ["one\ntwo", ""]),
        (b'{"text": "one"}\n{"text": "two"}\n', [{"text": "one"}, {"text": "two"}]),
    ],
    ids=range(4),
)
def test_an_array_holds_a_document_in_each_item(
    write: Write, name: str, data: bytes, documents: list[object]
) -> None:
    assert read_documents([write(name, data)]) == documents


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "a.json",
            b'[{"text": "one"}, {"text": null}]',
            "`text` of a.json item 2 must be a string",
        ),
        ("a.json", b'["one", 2]', "a.json item 2 must be a string or an object .* not a number"),
        ("a.json", b'[["one"]]', "a.json item 1 must be .* not a list"),
        ("a.json", b'[{"title": "one"}]', "a.json item 1 has no `text`"),
        ("a.json", b'{"documents": ["one"]}', "a.json is an object; a .json file must be an array"),
        ("a.json", b'"one"', "a.json is a string; a .json file must be an array"),
        ("a.json", b'["one",\n "two"', "a.json is not JSON: .* line 2 .*; a .json file must be"),
        ("a.json", b"plain\nlines\n", "a.json is not JSON: .*; a .json file must be an array"),
        ("a.json", b"[" * 200_000, "a.json is nested too deeply; a .json file must be an array"),
        ("a.jsonl", b'{"text": null}\n', "the `text` of a.jsonl line 1 must be .*, not null"),
        ("a.jsonl", b'{"text": "a"}\n{"text": ["b"]}\n', "a.jsonl line 2 must be .*, not a list"),
        ("-", b'{"text": null}\n', "the `text` of - line 1 must be a string, not null"),
    ],
)
def test_a_document_that_is_none_is_named_by_file_and_line(
    write: Write, name: str, data: bytes, message: str
) -> None:
    with pytest.raises(InvalidFieldError, match=message):
        read_documents([write(name, data)])


@pytest.mark.parametrize(
    ("name", "data", "place"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": "b\\ud83d"}\n', "a.jsonl line 2"),
        ("a.json", b'["a", "b\\ud83d"]', "a.json item 2"),
    ],
)
def test_a_lone_surrogate_is_named_by_file_and_line(
    write: Write, name: str, data: bytes, place: str
) -> None:
    with pytest.raises(InvalidTextError, match=f"{place} .* lone surrogate at character 1"):
        read_documents([write(name, data)])


def test_an_empty_array_and_a_name_that_cannot_be_are_refused(write: Write) -> None:
    with pytest.raises(MissingFieldError, match=r"no documents in a\.json"):
        read_documents([write("a.json", b"[]")])
    with pytest.raises(MissingFieldError, match="cannot read"):
        read_documents(["a\0b"])
