"""Work in a thread, read as an iterator: no item, error or thread is lost."""

from __future__ import annotations

import threading

import pytest

from video_llama.conversation.streaming import in_thread


class Trouble(Exception):
    pass


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert not [thread for thread in threading.enumerate() if "answer" in thread.name]


def test_items_arrive_in_order():
    def work(put):
        for i in range(100):
            put(i)

    assert list(in_thread(work)) == list(range(100))
    assert list(in_thread(lambda put: None)) == []


def test_an_item_arrives_before_the_work_ends():
    go_on = threading.Event()

    def work(put):
        put("first")
        assert go_on.wait(10)
        put("second")

    items = in_thread(work)
    assert next(items) == "first"
    go_on.set()
    assert list(items) == ["second"]


@pytest.mark.parametrize("error", [Trouble, KeyboardInterrupt, SystemExit])
def test_an_error_reaches_the_reader_after_the_items_before_it(error):
    def work(put):
        put(1)
        raise error("here")

    items = in_thread(work)
    assert next(items) == 1
    with pytest.raises(error, match="here"):
        next(items)
    assert list(items) == []


def test_closing_stops_the_work_at_its_next_step():
    steps = []
    read = threading.Event()

    def work(put):
        for i in range(1_000_000):
            steps.append(i)
            put(i)
            assert i < 2 or read.wait(10)

    items = in_thread(work)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    read.set()
    items.close()
    assert len(steps) < 1_000_000


def test_an_error_during_closing_is_swallowed():
    def work(put):
        try:
            for i in range(1000):
                put(i)
        finally:
            raise Trouble

    items = in_thread(work)
    next(items)
    items.close()


def test_the_work_does_not_wait_for_a_slow_reader():
    over = threading.Event()

    def work(put):
        for i in range(100):
            put(i)
        over.set()

    items = in_thread(work)
    next(items)
    assert over.wait(10)
    assert len(list(items)) == 99


def test_nothing_starts_before_the_first_item_is_requested():
    in_thread(lambda put: pytest.fail("it started"))
