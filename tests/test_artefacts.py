"""Artefacts: whole or set aside, never computed twice, alive after every kind of interruption."""

import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilth
from tilth.artefacts import Artefact, Manifest, Store, digest_of, step_key, write_atomically
from tilth.errors import ArtefactError
from tilth.method import Outcome
from tilth.seeds import SeedPlan

KEY = step_key("select.length", "1", {"count": 2}, {"data": "0" * 64}, seed=7)
FIELDS = {
    "step": "keep",
    "method": "select.length",
    "kind": "rows",
    "settings": {"count": 2, "data": "pool.jsonl"},
    "inputs": {"data": {"ref": "pool.jsonl", "digest": "0" * 64}},
    "seed": 7,
    "seeds": SeedPlan().as_dict(),
}
SRC = str(Path(tilth.__file__).parents[1])


class Step:
    """A step's work that counts how often it was done."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.runs = 0

    def __call__(self, folder, scratch, ledger):
        self.runs += 1
        (folder / "rows.jsonl").write_text('{"id": 1}\n{"id": 2}\n')
        (folder / "deep" / "er").mkdir(parents=True)
        (folder / "deep" / "er" / "blob.bin").write_bytes(bytes(range(256)) * 10)
        ledger.add(tokens_read=5)
        return Outcome({"rows_out": np.int64(2)}, [("read", 3), ("kept", 2)], ["quality"])

    def produce(self) -> Artefact:
        return self.store.produce("keep", KEY, FIELDS, self)


@pytest.fixture
def said():
    return []


@pytest.fixture
def step(tmp_path, said):
    return Step(Store(tmp_path / "artefacts", say=said.append))


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_an_artefact_holds_files_and_how_they_came_about(step):
    artefact = step.produce()
    manifest = Artefact.open(artefact.folder).manifest
    assert not artefact.cached
    assert artefact.folder.name == f"keep-{KEY[:12]}"
    assert names(artefact.folder.parent) == [artefact.folder.name]
    assert artefact.path("rows.jsonl").read_text().startswith('{"id": 1}')
    assert artefact.path("deep").is_dir()
    assert sorted(manifest.files) == ["deep/er/blob.bin", "rows.jsonl"]
    assert manifest.files["rows.jsonl"]["bytes"] == 20
    assert (manifest.key, manifest.seed, manifest.attempts) == (KEY, 7, 1)
    assert manifest.metrics == {"rows_out": 2}
    assert manifest.funnel == [("read", 3), ("kept", 2)]
    assert manifest.not_measured == ["quality"]
    assert manifest.cost["tokens_read"] == 5
    assert manifest.cost["seconds"] > 0
    assert {"tilth", "python", "numpy", "torch"} <= manifest.versions.keys()
    assert manifest.started <= manifest.finished
    assert json.loads((artefact.folder / "manifest.json").read_text())["schema"] == 1


def test_a_finished_key_is_never_computed_twice(step, said):
    first = step.produce()
    second = step.produce()
    assert step.runs == 1
    assert second.cached
    assert second.manifest == first.manifest
    assert step.store.find(KEY, "keep").digest == first.digest
    assert said == []


def test_files_are_read_only(step):
    artefact = step.produce()
    assert artefact.path("rows.jsonl").stat().st_mode & 0o222 == 0


def flip(folder):
    path = folder / "rows.jsonl"
    path.chmod(0o644)
    body = bytearray(path.read_bytes())
    body[3] ^= 1
    path.write_bytes(body)


def truncate(folder):
    path = folder / "deep/er/blob.bin"
    path.chmod(0o644)
    os.truncate(path, 100)


def delete(folder):
    (folder / "rows.jsonl").unlink()


def unseal(folder):
    (folder / "manifest.json").unlink()


def add(folder):
    (folder / "deep" / "more.txt").write_text("x")


def relink(folder):
    path = folder / "rows.jsonl"
    path.rename(folder.parent / "elsewhere")
    path.symlink_to(folder.parent / "elsewhere")


def alter_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"rows_out": 2', '"rows_out": 3'))


def break_manifest(folder):
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:-40])


def empty_manifest(folder):
    (folder / "manifest.json").write_text("[]")


DAMAGE = {
    flip: "rows.jsonl has other bytes",
    truncate: "blob.bin has 100 bytes, not 2560",
    delete: "rows.jsonl is missing",
    unseal: "half-written",
    add: "deep/more.txt does not belong",
    relink: "rows.jsonl was replaced by a link",
    alter_manifest: "manifest.json was altered",
    break_manifest: "manifest.json",
    empty_manifest: "manifest.json",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda d: d.__name__)
def test_a_damaged_artefact_is_named_set_aside_and_computed_again(step, said, damage):
    folder = step.produce().folder
    good = digest_of(folder)
    damage(folder)
    with pytest.raises(ArtefactError, match=DAMAGE[damage]):
        Artefact.open(folder)
    again = step.produce()
    assert step.runs == 2
    assert again.digest == good
    assert len(said) == 1
    assert DAMAGE[damage] in said[0]
    assert "set-aside" in said[0]
    assert (folder.parent / "set-aside" / f"{folder.name}-1").is_dir()


def test_find_sets_a_damaged_artefact_aside_too(step, said):
    folder = step.produce().folder
    for _ in range(2):
        flip(folder)
        assert step.store.find(KEY, "keep") is None
        step.produce()
    assert names(folder.parent / "set-aside") == [f"{folder.name}-1", f"{folder.name}-2"]
    assert len(said) == 2


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_any_flipped_bit_is_found(tmp_path_factory, place, bit):
    root = tmp_path_factory.getbasetemp() / "flipped"
    artefact = Step(Store(root)).produce()
    files = [p for p in sorted(artefact.folder.rglob("*")) if p.is_file()]
    target = files[place % len(files)]
    before, mode = target.read_bytes(), target.stat().st_mode
    body = bytearray(before)
    body[place * 7 % len(body)] ^= 1 << bit
    target.chmod(0o644)
    target.write_bytes(body)
    found = ""
    try:
        opened = Artefact.open(artefact.folder)
    except ArtefactError as error:
        found = str(error)
    target.write_bytes(before)
    target.chmod(mode)
    if found:
        assert target.name in found
    else:  # white space of the manifest carries nothing: what was read is what was written
        assert target.name == "manifest.json"
        assert opened.manifest == artefact.manifest


def test_litter_of_the_system_does_no_harm(step):
    folder = step.produce().folder
    (folder / ".DS_Store").write_text("x")
    assert step.produce().cached


def test_another_key_in_the_same_folder_is_not_used(step, said):
    step.produce()
    assert step.store.find(KEY[:12] + "f" * 52, "keep") is None
    assert "another key" in said[0]


# Keys and digests


def test_digests_of_files_folders_and_artefacts(tmp_path, step):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (two, one):
        (folder / "sub").mkdir(parents=True)
        for name in ("b", "a", "sub/c"):
            (folder / name).write_text(name)
    assert digest_of(one) == digest_of(two)
    assert digest_of(one / "a") == digest_of(two / "a") != digest_of(one / "b")
    (two / "a").rename(two / "aa")
    assert digest_of(one) != digest_of(two)
    artefact = step.produce()
    copy = tmp_path / "copy"
    (copy / "deep" / "er").mkdir(parents=True)
    for name in artefact.manifest.files:
        (copy / name).write_bytes(artefact.path(name).read_bytes())
    assert digest_of(copy) == digest_of(artefact.folder) == artefact.digest
    flip(artefact.folder)
    with pytest.raises(ArtefactError, match="damaged"):
        digest_of(artefact.folder)


def test_a_manifest_cannot_point_outside(step):
    for name in ("../x", "/etc/passwd", "a/../../x", ""):
        with pytest.raises(ArtefactError, match="not a file inside"):
            Manifest.of({"files": {name: {"sha256": "0", "bytes": 1}}})
    with pytest.raises(ArtefactError, match=r"has no 'other.jsonl'"):
        step.produce().path("other.jsonl")


# What a step may not do


@pytest.mark.parametrize(
    "bad",
    [
        {"api_key": "sk-123"},
        {"judge": {"password": "hunter2"}},
        {"hf_token": "x"},
        {"token": "x"},
        {"model": "openai:m@http://me:secret@host/v1"},
        {"note": ["sk-abcdefghijklmnopqrstuvwx"]},
        {"url": "http://host/v1?api_key=abc"},
    ],
)
def test_secrets_never_reach_a_manifest(step, bad):
    with pytest.raises(ArtefactError, match="key or password") as caught:
        step.store.produce("keep", KEY, {**FIELDS, "settings": bad}, step)
    assert step.runs == 0
    assert not step.store.root.exists()
    for secret in ("hunter2", "secret@", "sk-", "=abc"):
        assert secret not in str(caught.value)


def test_names_that_only_resemble_secrets_are_fine(step):
    fine = {"max_new_tokens": 64, "api_key_env": "MY_KEY", "stop_tokens": ["a"], "token": None}
    step.store.produce("keep", KEY, {**FIELDS, "settings": fine}, step)


def test_a_step_must_write_what_its_kind_promises(step):
    with pytest.raises(ArtefactError, match="wrote no rows"):
        step.store.produce("keep", KEY, FIELDS, lambda *_: Outcome())
    assert names(step.store.root) == [f"keep-{KEY[:12]}.scratch"]


def test_links_and_foreign_manifests_are_refused(step):
    def linking(folder, scratch, ledger):
        (folder / "rows.jsonl").symlink_to("/etc/hosts")
        return Outcome()

    with pytest.raises(ArtefactError, match="cannot hold"):
        step.store.produce("keep", KEY, FIELDS, linking)


def test_metrics_are_plain(step):
    def work(folder, scratch, ledger):
        (folder / "rows.jsonl").write_text("")
        return Outcome({"a": float("nan"), "b": np.float32(0.5), "c": np.arange(2), "d": (1,)})

    artefact = step.store.produce("keep", KEY, FIELDS, work)
    assert artefact.manifest.metrics == {"a": None, "b": 0.5, "c": [0, 1], "d": [1]}


@pytest.mark.parametrize("label", ["", "../up", "a/b", "x.partial", "-x", "a" * 81])
def test_bad_labels_are_refused(step, label):
    with pytest.raises(ArtefactError, match="name of an artefact"):
        step.store.find(KEY, label)


# Interruptions


def test_ctrl_c_leaves_a_state_to_resume_from(step, said):
    def interrupted(folder, scratch, ledger):
        (folder / "rows.jsonl").write_text("half")
        (scratch / "answers").write_text("kept")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        step.store.produce("keep", KEY, FIELDS, interrupted)
    assert step.store.find(KEY, "keep") is None

    def resumed(folder, scratch, ledger):
        assert (scratch / "answers").read_text() == "kept"
        assert list(folder.iterdir()) == []
        return step(folder, scratch, ledger)

    artefact = step.store.produce("keep", KEY, FIELDS, resumed)
    assert artefact.manifest.attempts == 2
    assert names(step.store.root) == [artefact.folder.name]


# Disks


def test_a_full_disk_says_what_to_do(step):
    def filling(folder, scratch, ledger):
        with open("/dev/full", "w") as full:
            full.write("x")
        return Outcome()

    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(ArtefactError, match="the disk is full") as caught:
        step.store.produce("keep", KEY, FIELDS, filling)
    assert "free some space" in caught.value.fix
    assert "MiB free" in caught.value.where
    assert step.produce().manifest.attempts == 2


def test_a_full_disk_inside_a_librarys_own_error_is_seen(step):
    def wrapped(folder, scratch, ledger):
        raise RuntimeError("SafetensorError: I/O error: No space left on device (os error 28)")

    with pytest.raises(ArtefactError, match="the disk is full"):
        step.store.produce("keep", KEY, FIELDS, wrapped)


def test_a_limit_on_file_size_is_told(step):
    def large(folder, scratch, ledger):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            (folder / "rows.jsonl").write_bytes(bytes(5000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with pytest.raises(ArtefactError, match="larger than is allowed"):
        step.store.produce("keep", KEY, FIELDS, large)


def test_a_folder_that_cannot_be_written_is_told(tmp_path, step):
    (tmp_path / "file").write_text("a regular file")
    for root in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/artefacts")):
        with pytest.raises(ArtefactError, match="cannot be written") as caught:
            Store(root).produce("keep", KEY, FIELDS, step)
        assert "choose a folder" in caught.value.fix
        assert step.runs == 0


@pytest.mark.parametrize("inside", [True, False])
def test_other_errors_of_the_work_pass_through(step, inside):
    def failing(folder, scratch, ledger):
        ((folder if inside else Path("/nowhere")) / "absent.jsonl").read_text()

    with pytest.raises(FileNotFoundError):
        step.store.produce("keep", KEY, FIELDS, failing)


def test_write_atomically_keeps_the_old_content_on_failure(tmp_path):
    path = tmp_path / "run.json"
    write_atomically(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(ArtefactError, match="larger than is allowed"):
            write_atomically(path, "new" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["run.json"]
    write_atomically(path, b"new")
    assert path.read_text() == "new"
