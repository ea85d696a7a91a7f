"""The ledger: amounts add up, measurements cover what they should, FLOPs follow the formula."""

import os
import pickle
import subprocess
import sys
import threading
import time

import pytest

from tilth.cost import Ledger, forward_flops, training_flops


def test_amounts_add_up():
    ledger = Ledger()
    ledger.add(tokens_read=3, tokens_generated=2, money=0.5)
    ledger.add(tokens_read=4, tokens_trained=7, flops=1e9, bytes_sent=10, requests=1)
    assert (ledger.tokens_read, ledger.tokens_generated, ledger.tokens_trained) == (7, 2, 7)
    assert (ledger.flops, ledger.bytes_sent, ledger.requests, ledger.money) == (1e9, 10, 1, 0.5)


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf")])
def test_senseless_amounts_are_refused_whole(amount):
    ledger = Ledger()
    with pytest.raises(ValueError, match="flops"):
        ledger.add(tokens_read=1, flops=amount)
    assert ledger == Ledger()


def test_threads_lose_nothing():
    ledger = Ledger()
    threads = [
        threading.Thread(target=lambda: [ledger.add(requests=1) for _ in range(2000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.requests == 8000


def test_measure_books_seconds_and_processor_time():
    ledger = Ledger()
    with ledger.measure():
        time.sleep(0.05)
    slept = ledger.cpu_seconds
    assert ledger.seconds >= 0.05
    assert slept < 0.05
    with ledger.measure():
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
    assert ledger.cpu_seconds >= slept + 0.05


def test_measure_books_children():
    ledger = Ledger()
    code = "x = bytearray(300_000_000); [n * n for n in range(300_000)]"
    with ledger.measure():
        subprocess.run([sys.executable, "-c", code], check=True)
    assert ledger.peak_memory_bytes > 300_000_000
    assert ledger.cpu_seconds > 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset its high-water mark")
def test_peak_memory_is_that_of_the_block():
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the high-water mark cannot be reset here")
    outer, large, small = Ledger(), Ledger(), Ledger()
    with outer.measure():
        with large.measure():
            block = bytearray(200_000_000)
            del block
        with small.measure():
            pass
    assert large.peak_memory_bytes - small.peak_memory_bytes > 150_000_000
    assert outer.peak_memory_bytes >= large.peak_memory_bytes


def test_nested_measures_of_one_ledger_count_once():
    ledger = Ledger()
    with ledger.measure(), ledger.measure():
        time.sleep(0.03)
    assert ledger.seconds >= 0.03
    once = Ledger()
    begin = time.perf_counter()
    with once.measure():
        with once.measure():
            time.sleep(0.05)
    assert once.seconds <= time.perf_counter() - begin


def test_a_failing_block_is_booked():
    ledger = Ledger()

    def failing():
        with ledger.measure():
            time.sleep(0.01)
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert ledger.seconds >= 0.01


def test_merge_adds_amounts_and_keeps_the_higher_peak():
    a = Ledger(seconds=1, peak_memory_bytes=5, tokens_read=2)
    a.merge(Ledger(seconds=2, peak_memory_bytes=9, tokens_read=3, flops=4.0))
    assert a == Ledger(seconds=3, peak_memory_bytes=9, tokens_read=5, flops=4.0)


def test_dictionaries_and_pickles_round_trip():
    ledger = Ledger(seconds=1.5, tokens_trained=3)
    assert Ledger.from_dict(ledger.as_dict()) == ledger
    assert Ledger.from_dict({**ledger.as_dict(), "of_a_later_version": 1}) == ledger
    assert pickle.loads(pickle.dumps(ledger)) == ledger
    assert not any(name.startswith("_") for name in ledger.as_dict())


def test_flops_by_hand():
    # 10 parameters, 3 tokens: a multiplication and an addition each.
    assert forward_flops(10, 3) == 60
    # One layer of width 4 over 5 positions: q.k and the weighted sum, 2 * 5 * 4 each, per token.
    assert forward_flops(10, 3, layers=1, width=4, context=5) == 60 + 3 * 2 * (2 * 5 * 4)
    assert training_flops(10, 3, layers=1, width=4, context=5) == 3 * 300
    # GPT-3 has 3.14e23 FLOPs for 300e9 tokens: Brown et al. 2020, arXiv:2005.14165, table D.1.
    assert training_flops(174_600_000_000, 300_000_000_000) == pytest.approx(3.14e23, rel=0.005)
