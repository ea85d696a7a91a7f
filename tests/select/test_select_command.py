"""``tilth select METHOD --out chosen.jsonl``: the file, the folder, the page, and the estimate."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilth.almanac.pool import pool as almanac_pool
from tilth.cli import main
from tilth.data import read, write_rows


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    write_rows("pool.jsonl", almanac_pool(20, seed=1))
    return tmp_path


def test_rows_go_to_the_file_and_the_page_lies_beside(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["select", "perplexity", "--pool", "pool.jsonl", "--count", "5", "--model", str(tiny)]
    assert main([*words, "--out", "chosen.jsonl"]) == 0
    told = capsys.readouterr().out
    assert told.index("estimated cost: tokens_read=") < told.index("kept 5 of 20 rows")
    assert "rows in chosen.jsonl" in told
    assert "report: chosen.html" in told
    assert Path("chosen.jsonl").read_bytes() == Path("chosen/rows.jsonl").read_bytes()
    assert len(read("chosen.jsonl")) == 5
    assert "5</span> of 20 rows" in Path("chosen.html").read_text(encoding="utf-8")
    assert main([*words, "--out", "chosen.jsonl"]) == 0
    assert "found finished: chosen" in capsys.readouterr().out


def test_a_folder_stays_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["select", "random", "--pool", "pool.jsonl", "--count", "3", "--out", "drawn"]
    assert main(words) == 0
    assert Path("drawn/rows.jsonl").exists()
    assert Path("drawn.html").exists()
    assert "rows in" not in capsys.readouterr().out
    assert "NAME.jsonl" in (main([*words[:2], "--help"]), capsys.readouterr().out)[1]


def test_no_file_of_others_is_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("pool.jsonl").read_bytes()
    words = ["select", "length", "--pool", "pool.jsonl", "--count", "3", "--out"]
    assert main([*words, "pool.jsonl"]) == 1
    assert "already holds something else" in capsys.readouterr().err
    assert Path("pool.jsonl").read_bytes() == before
    assert main([*words, "kept.jsonl"]) == 0
    Path("kept.jsonl").write_text("mine\n")
    assert main([*words, "kept.jsonl"]) == 1
    assert "other rows than those of kept" in capsys.readouterr().err
    assert Path("kept.jsonl").read_text() == "mine\n"
