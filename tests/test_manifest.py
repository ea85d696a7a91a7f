"""Step keys and content digests."""

import os

import pytest

from tilth.artefacts import digest_of, step_key
from tilth.errors import ArtefactError


def test_a_key_depends_on_all_that_decides_the_content():
    base = {"method": "a.b", "version": "1", "settings": {"x": 1, "data": "p"}}
    more = {"input_digests": {"data": "d1"}, "seed": 0, "seeds": {"root": 0}}
    key = step_key(**base, **more)
    changes = [
        {"method": "a.c"},
        {"version": "2"},
        {"settings": {"x": 2, "data": "p"}},
        {"input_digests": {"data": "d2"}},
        {"seed": 1},
        {"seeds": {"root": 1}},
    ]
    assert len({key, *(step_key(**{**base, **more, **c}) for c in changes)}) == 7
    # Moved data and another order of the settings are the same step.
    assert key == step_key(**{**base, **more, "settings": {"data": "moved", "x": 1}})


def test_a_key_is_the_same_on_every_machine():
    known = "183fe2f1dc658055"  # recorded from this very call
    assert step_key("select.length", "1", {"count": 500}, {"data": "ab"}, seed=3)[:16] == known


def test_a_setting_without_json_form_is_refused():
    with pytest.raises(ArtefactError, match=r"settings\.settings\.f"):
        step_key("a.b", "1", {"f": print})


def test_a_foreign_manifest_is_a_file_like_any_other(tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "somebody else\'s"}')
    before = digest_of(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    assert digest_of(tmp_path) != before


def test_what_cannot_be_digested_is_named(tmp_path):
    with pytest.raises(ArtefactError, match="no such file or folder"):
        digest_of(tmp_path / "absent")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ArtefactError, match="link"):
        digest_of(tmp_path)
    (tmp_path / "link").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArtefactError, match="pipe"):
        digest_of(tmp_path)
