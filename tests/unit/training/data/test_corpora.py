import gzip
from pathlib import Path

import pytest
from training.data.corpora import DataError, check_data, read_training_rows

ROW = '{"query": "q", "positive": "p", "group": "g"}'


def write(data: Path, content: bytes) -> None:
    """A training file of one language."""
    path = data / "train" / "cmrc2018.jsonl.gz"
    path.parent.mkdir()
    path.write_bytes(content)


def test_all_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    write(tmp_path, gzip.compress(ROW.encode()))

    with pytest.raises(DataError) as raised:
        check_data(tmp_path)

    said = str(raised.value)
    assert str(tmp_path) in said
    assert "train/drcd.jsonl.gz" in said
    assert "eval/scifact/qrels.tsv" in said
    assert "cmrc2018" not in said


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (gzip.compress(f"{ROW}\n{{".encode()), "line 2, is not JSON"),
        (gzip.compress(f'{ROW}\n\n{{"query": "q"}}'.encode()), "line 3, has no positive, group"),
        (b"no archive", "cannot be read"),
        (gzip.compress(ROW.encode())[:-9], "cannot be read"),
        (gzip.compress(b"\xff"), "cannot be read"),
    ],
    ids=["half a row", "fields missing", "no archive", "cut off", "no text"],
)
def test_a_file_that_cannot_be_read_is_named_with_the_line(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    write(tmp_path, content)

    with pytest.raises(DataError, match=rf"cmrc2018\.jsonl\.gz.*{complaint}"):
        read_training_rows(tmp_path, "cmrc2018")


def test_rows_without_an_id_have_their_number(tmp_path: Path) -> None:
    write(tmp_path, gzip.compress(f"{ROW}\n{ROW}\n".encode()))

    assert [row.id for row in read_training_rows(tmp_path, "cmrc2018")] == ["0", "1"]
