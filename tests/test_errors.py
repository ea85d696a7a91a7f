"""Errors: three things said, the built-in kept, whole across processes."""

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tilth import errors
from tilth.errors import ArtefactError, DataError, MissingExtra, SeedError, TilthError, nearest

NAMED = [k for name in errors.__all__ if isinstance(k := getattr(errors, name), type)]
ALL = [k for k in NAMED if not issubclass(k, Warning)]
BUILT_INS = {
    "ArtefactError": RuntimeError,
    "DataError": ValueError,
    "EngineError": RuntimeError,
    "MissingExtra": ImportError,
    "ModelError": RuntimeError,
    "RecipeError": ValueError,
    "SandboxError": RuntimeError,
    "SeedError": ValueError,
    "TilthError": Exception,
    "TrainingError": RuntimeError,
}


def fail() -> None:
    raise DataError("no answer", where="rows.jsonl:7", fix="add one")


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_ours_and_a_built_in(kind):
    assert kind.__name__ in BUILT_INS
    assert issubclass(kind, TilthError)
    assert issubclass(kind, BUILT_INS[kind.__name__])


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("travel", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_every_error_stays_whole_when_pickled(kind, travel):
    error = travel(kind("wrong", where="here", fix="so"))
    assert type(error) is kind
    assert (error.problem, error.where, error.fix) == ("wrong", "here", "so")


def test_an_error_says_what_where_and_what_to_do():
    assert str(DataError("no answer", "rows.jsonl:7", "add one")) == (
        "no answer\n  where: rows.jsonl:7\n  fix:   add one"
    )
    assert str(SeedError("no seed")) == "no seed"
    assert str(ArtefactError("full", fix="free space")) == "full\n  fix:   free space"


def test_an_error_crosses_a_worker_process():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with pytest.raises(DataError, match="no answer") as caught:
            pool.submit(fail).result()
    assert caught.value.where == "rows.jsonl:7"


def test_a_missing_extra_names_the_command():
    error = MissingExtra.of("gymnasium", "rl")
    assert error.fix == "pip install 'tilth[rl]'"
    assert "gymnasium" in str(error)
    assert pickle.loads(pickle.dumps(error)).fix == error.fix


def test_a_slip_is_answered_with_the_nearest_word():
    assert nearest("cuont", ["count", "data"]) == "did you mean 'count'?"
    assert nearest("zzz", ["count", "data"]) == ""
