"""Reading files of every kind, with a quarantine for bad rows."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tilth.artefacts import Store, step_key
from tilth.cost import Ledger
from tilth.data import Example, read, write_rows
from tilth.errors import ArtefactError, DataError
from tilth.method import Outcome

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"the held data sets are not there ({SHARED})"
)


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def question(i: int) -> dict[str, str]:
    return {"question": f"What is {i} + 1?", "answer": str(i + 1)}


def prompts(path: Path, **options) -> list[str]:
    return [example.prompt for example in read(path, **options)]


# ---- kinds of file


def test_json_lines_are_a_sequence(tmp_path: Path) -> None:
    rows = read(lines(tmp_path / "pool.jsonl", *map(question, range(10))))
    assert (len(rows), rows.form, rows.records, rows.rejected) == (10, "question_answer", 10, {})
    assert rows[3].answer == "4"
    assert rows[-1].answer == "10"
    assert [row.answer for row in rows[2:8:3]] == ["3", "6"]
    assert [row.answer for row in rows.select([5, 0, 5])] == ["6", "1", "6"]
    assert [row.id for row in rows] == [rows[i].id for i in range(10)]
    assert rows[3].meta == {"read_from": "pool.jsonl:4"}
    with pytest.raises(IndexError):
        rows[10]


@pytest.mark.parametrize(
    ("ending", "pack"), [(".xz", lzma.compress), (".gz", gzip.compress), (".bz2", bz2.compress)]
)
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv"])
def test_packed_files_are_read_like_plain_ones(
    tmp_path: Path, kind: str, ending: str, pack
) -> None:
    text = {
        ".jsonl": '{"question": "Why?", "answer": "So."}\n',
        ".json": '[{"question": "Why?", "answer": "So."}]',
        ".csv": "question,answer\nWhy?,So.\n",
    }[kind]
    path = tmp_path / f"pool{kind}{ending}"
    path.write_bytes(pack(text.encode()))
    assert prompts(path) == ["Why?"]


def test_a_zstandard_file(tmp_path: Path) -> None:
    import pyarrow

    path = tmp_path / "pool.jsonl.zst"
    with pyarrow.output_stream(str(path), compression="zstd") as file:
        file.write(b'{"question": "Why?", "answer": "So."}\n')
    assert prompts(path) == ["Why?"]


def test_a_cut_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl.xz"
    path.write_bytes(lzma.compress(b'{"question": "Why?", "answer": "So."}\n' * 99)[:-9])
    with pytest.raises(DataError, match="cannot be decompressed"):
        read(path)


@pytest.mark.parametrize("value", [
    [question(1), question(2)],
    {"version": 1, "data": [question(1), question(2)]},
])  # fmt: skip
def test_a_json_list_alone_or_in_an_object(tmp_path: Path, value: object) -> None:
    path = tmp_path / "pool.json"
    path.write_text(json.dumps(value, indent=1))
    assert [row.answer for row in read(path)] == ["2", "3"]


def test_one_conversation_in_a_json_file_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    path.write_text(json.dumps({"messages": Example.pair("Why?", "So.").messages}, indent=1))
    assert prompts(path) == ["Why?"]


def test_json_lines_called_json(tmp_path: Path) -> None:
    assert len(read(lines(tmp_path / "pool.json", question(1), question(2)))) == 2


def test_a_broken_json_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "pool.json"
    path.write_text('[{"question": "q",\n "answer": }]')
    with pytest.raises(DataError, match="line 2"):
        read(path)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_keeps_text_as_it_is_written(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "pool.csv"
    rows = [["question", "answer"], ['"a\nb ""c"""', "007"], ["q", "NA"]]
    path.write_text("\n".join(mark.join(row) for row in rows) + "\n\n")
    found = read(path)
    assert [(row.prompt, row.answer) for row in found] == [('a\nb "c"', "007"), ("q", "NA")]
    assert [row.meta["read_from"] for row in found] == ["pool.csv:2", "pool.csv:4"]


def test_csv_rows_with_too_many_fields_are_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "pool.csv"
    path.write_text('question,answer\nq,a\nq,a,b\n"q"x,a\nq\n')
    rows = read(path, max_rejected=0.9)
    assert [(row.line, row.reason) for row in rows.rejections()] == [
        (3, "3 fields where the header has 2"),
        (4, "broken quotes"),
        (5, "1 fields where the header has 2"),
    ]


def test_a_quote_that_is_never_closed_swallows_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "pool.csv"
    path.write_text("question,answer\n" + "q,a\n" * 20 + '"q,a\n' + "q,a\n" * 500)
    with pytest.raises(DataError, match="a quote is opened in line 22"):
        read(path)


def test_messages_in_a_csv_cell(tmp_path: Path) -> None:
    path = tmp_path / "pool.csv"
    cell = json.dumps(Example.pair("Why?", "So.").messages).replace('"', '""')
    path.write_text(f'messages\n"{cell}"\n')
    assert prompts(path) == ["Why?"]


def test_plain_text_is_a_document_per_block(tmp_path: Path) -> None:
    path = tmp_path / "page.txt"
    path.write_bytes(b"\xef\xbb\xbf\r\nfirst\r\nline\r\n\r\n \r\n\r\nsecond")
    rows = read(path, require="prompt")
    assert [row.prompt for row in rows] == ["first\nline", "second"]
    assert [row.meta["read_from"] for row in rows] == ["page.txt:2", "page.txt:7"]
    with pytest.raises(DataError, match="no answers"):
        read(path)


def test_byte_order_mark_line_ends_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    row = json.dumps(question(1)).encode()
    path.write_bytes(b"\xef\xbb\xbf" + row + b"\r\n\r\n" + row + b"\r\n\n  \n" + row)
    rows = read(path)
    assert [row.answer for row in rows] == ["2", "2", "2"]
    assert [row.meta["read_from"][-1] for row in rows] == ["1", "3", "6"]


def test_utf_16_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_text(json.dumps(question(1)), encoding="utf-16")
    with pytest.raises(DataError, match="UTF-16"):
        read(path)


# ---- bad rows

BROKEN = [
    (b'{"question": "q", "answer": null}', "answer", "null content"),
    (b'{"question": "q"', "", "invalid JSON"),
    (b'{"question": "q", "answer": "a", "score": NaN}', "", "invalid JSON"),
    (b'{"question": "q", "answer": "a", "score": 1e999}', "", "invalid JSON"),
    (b"[" * 100_000, "", "invalid JSON"),
    (b'["q", "a"]', "", "a list instead of an object"),
    (b'{"question": "\xff", "answer": "a"}', "", "invalid UTF-8"),
    (
        b'{"question": "q", "answer": "a", "by": "\\ud800"}',
        "",
        "half a character (a lone surrogate)",
    ),
    (b'{"question": "  ", "answer": "a"}', "messages[0].content", "empty user turn"),
    (b'{"question": 5, "answer": "a"}', "question", "a number instead of text"),
]


def with_broken_rows(path: Path, good: int) -> Path:
    rows = [json.dumps(question(i)).encode() for i in range(good)] + [row for row, *_ in BROKEN]
    path.write_bytes(b"\n".join(rows) + b"\n")
    return path


def test_every_bad_row_is_listed_with_line_field_and_reason(tmp_path: Path) -> None:
    said: list[str] = []
    rejected = tmp_path / "out" / "rejected.jsonl"
    path = with_broken_rows(tmp_path / "pool.jsonl", 100)
    rows = read(path, say=said.append, rejected_to=rejected)
    assert len(rows) == 100
    listed = [json.loads(line) for line in rejected.read_text().splitlines()]
    assert [(r["field"], r["reason"]) for r in listed] == [case[1:] for case in BROKEN]
    assert [r["line"] for r in listed] == list(range(101, 101 + len(BROKEN)))
    assert {r["file"] for r in listed} == {"pool.jsonl"}
    assert listed[1]["row"] == '{"question": "q"'
    assert max(len(r["row"]) for r in listed) <= 300
    assert sum(rows.rejected.values()) == len(BROKEN)
    assert rows.rejected["invalid JSON"] == 4
    assert "10 rejected: 4 invalid JSON" in said[-1]


def test_too_many_bad_rows_stop_the_run_and_are_listed(tmp_path: Path) -> None:
    rejected = tmp_path / "rejected.jsonl"
    with pytest.raises(DataError) as caught:
        read(with_broken_rows(tmp_path / "pool.jsonl", 80), rejected_to=rejected)
    text = str(caught.value)
    assert "10 of 90 rows cannot be used (11%, the limit is 10%)" in text
    assert "4 x invalid JSON: line 82, 83, 84, ..." in text
    assert "1 x null content: line 81 (answer)" in text
    assert "max_rejected" in caught.value.fix
    assert len(rejected.read_text().splitlines()) == 10


def test_no_usable_row_is_an_error_at_any_limit(tmp_path: Path) -> None:
    path = lines(tmp_path / "pool.jsonl", {"question": "q", "answer": None})
    with pytest.raises(DataError, match="none of the 1 rows can be used"):
        read(path, max_rejected=1.0)


def test_over_long_rows_are_set_aside(tmp_path: Path) -> None:
    path = lines(tmp_path / "pool.jsonl", question(1), {"question": "q", "answer": "a" * 99})
    rows = read(path, max_chars=50, max_rejected=0.5)
    assert rows.rejected == {"longer than 50 characters": 1}


def test_a_line_that_no_memory_should_hold_is_set_aside(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tilth.data._records.MAX_LINE", 2**10)
    path = lines(tmp_path / "pool.jsonl", {"question": "q", "answer": "a" * 5000}, question(1))
    rows = read(path, max_rejected=0.5)
    assert [(r.line, r.reason) for r in rows.rejections()] == [(1, "longer than 0 MiB")]
    assert rows[0].meta["read_from"] == "pool.jsonl:2"


def test_an_explicit_form_overrides(tmp_path: Path) -> None:
    row = {**question(1), "prompt": "p", "completion": "c"}
    path = lines(tmp_path / "pool.jsonl", row)
    assert read(path)[0].prompt == "p"
    assert read(path, form="question_answer")[0].prompt == "What is 1 + 1?"
    with pytest.raises(DataError, match="did you mean 'question_answer'"):
        read(path, form="questions_answers")


def test_rows_with_one_id_stay_apart(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.jsonl", {"id": "x", **question(1)}, {"id": "x", **question(2)})
    first, second = read(path)
    assert first.id != second.id
    assert first.meta["source_id"] == second.meta["source_id"] == "x"


def test_a_file_that_changes_under_the_reader_is_an_error(tmp_path: Path) -> None:
    path = lines(tmp_path / "pool.jsonl", question(1))
    rows = read(path)
    path.write_text("x" * 100)
    with pytest.raises(DataError, match="changed while it was in use"):
        rows[0]


# ---- nothing to read


def test_a_missing_file_suggests_the_nearest(tmp_path: Path) -> None:
    lines(tmp_path / "seeds.jsonl", question(1))
    with pytest.raises(DataError, match=r"did you mean .*seeds\.jsonl"):
        read(tmp_path / "seed.jsonl")
    with pytest.raises(DataError, match="check the path"):
        read(tmp_path / "no" / "folder.jsonl")


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", ""), ("a.jsonl", "\n \n"), ("a.json", "[]"), ("a.csv", "question,answer\n"),
     ("a.csv", ""), ("a.txt", "\n")],
)  # fmt: skip
@pytest.mark.parametrize("form", ["auto", "question_answer"])
def test_an_empty_file_is_named(tmp_path: Path, name: str, content: str, form: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match="empty"):
        read(tmp_path / name, form=form)


def test_an_unknown_kind_of_file_lists_the_known(tmp_path: Path) -> None:
    (tmp_path / "pool.docx").write_text("x")
    with pytest.raises(DataError, match=r"\.jsonl .*\.parquet"):
        read(tmp_path / "pool.docx")


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as pipe:  # a file that nobody can open, root included
        pipe.bind("pipe.jsonl")
    with pytest.raises(DataError, match="cannot be opened"):
        read(tmp_path / "pipe.jsonl")


def test_a_folder_without_manifest(tmp_path: Path) -> None:
    lines(tmp_path / "pool.jsonl", question(1))
    with pytest.raises(DataError, match=r"no manifest.json") as caught:
        read(tmp_path)
    assert "pool.jsonl" in caught.value.fix


# ---- artefacts, pools larger than memory, what people hold


def artefact(root: Path) -> Path:
    def work(folder: Path, scratch: Path, ledger: Ledger) -> Outcome:
        write_rows(folder / "rows.jsonl", [Example.pair("Why?", "So.", teacher="t")])
        return Outcome()

    key = step_key("select.test", "1", {})
    fields = {"step": "keep", "method": "select.test", "method_version": "1", "kind": "rows"}
    return Store(root).produce("keep", key, fields, work).folder


def test_an_artefact_is_verified_and_its_rows_come_unchanged(tmp_path: Path) -> None:
    folder = artefact(tmp_path)
    assert list(read(folder)) == [Example.pair("Why?", "So.", teacher="t")]
    (folder / "rows.jsonl").write_text((folder / "rows.jsonl").read_text().replace("So", "No"))
    with pytest.raises(ArtefactError, match=r"rows\.jsonl"):
        read(folder)


BOUNDED = """
import resource, sys
from tilth.data import read
import gzip, json, lzma, bz2  # noqa: what reading needs is loaded before the limit is set
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 16 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
rows = read(sys.argv[1])
assert sum(len(row.answer) for row in rows) == 4000 * 12000
assert rows[3999].prompt == "question 3999"
try:
    open(sys.argv[2], "rb").read()
except MemoryError:
    print("bounded")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and RLIMIT_AS")
@pytest.mark.parametrize("name", ["pool.jsonl", "pool.csv", "pool.jsonl.gz"])
def test_a_pool_larger_than_memory(tmp_path: Path, name: str) -> None:
    """48 MB of rows are read where only 16 MB more may be taken than the imports hold."""
    plain = tmp_path / "plain"
    with open(plain, "w") as file:
        if ".csv" in name:
            file.write("question,answer\n")
        for i in range(4000):
            answer = "a" * 12000
            row = f"question {i},{answer}" if ".csv" in name else (
                json.dumps({"question": f"question {i}", "answer": answer})
            )  # fmt: skip
            file.write(row + "\n")
    path = tmp_path / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(plain.read_bytes(), 1))
    else:
        path.hardlink_to(plain)
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, str(path), str(plain)],
        env={"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "bounded\n", done.stderr


def test_the_package_is_light() -> None:
    code = (
        "import sys, tilth.data; "
        "print([m for m in ('datasets', 'pyarrow', 'torch', 'datasketch', 'scipy') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "[]\n"


@needs_shared
@pytest.mark.parametrize(
    ("name", "require", "form", "count"),
    [
        ("goliath/self_instruct_seed_tasks.jsonl", "answer", "seed_tasks", 175),
        ("scalequest/gsm8k_test.jsonl.xz", "answer", "question_answer", 1319),
        ("scalequest/scalequest_samples_100.jsonl", "answer", "query_response", 100),
        ("tulu/HumanEval.jsonl.gz", "prompt", "prompt_completion", 164),
        ("r-tuning/SelfAware.json.xz", "prompt", "question_answer", 3369),
    ],
)
def test_files_that_people_hold(name: str, require, form: str, count: int) -> None:
    rows = read(SHARED / name, require=require)
    assert (rows.form, len(rows), rows.rejected) == (form, count, {})
    assert all(row.prompt for row in rows)
    if name.endswith("gsm8k_test.jsonl.xz"):
        assert all("#### " in row.answer for row in rows)
