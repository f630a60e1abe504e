"""A queue in which clients take turns."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from video_llama.conversation.fair_queue import FairQueue


def popped(queue: FairQueue[str]) -> list[str]:
    return [queue.pop() for _ in range(len(queue))]


def test_clients_take_turns_and_the_items_of_each_stay_in_order():
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        queue.push(item[0], item)
    assert popped(queue) == ["a1", "b1", "c1", "a2", "c2", "a3"]
    with pytest.raises(IndexError):
        queue.pop()


def test_a_client_that_comes_back_waits_for_the_others():
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "b1", "b2"):
        queue.push(item[0], item)
    assert queue.pop() == "a1"
    queue.push("a", "a2")
    assert popped(queue) == ["b1", "a2", "b2"]


def test_an_item_may_be_removed():
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "b1", "a2"):
        queue.push(item[0], item)
    queue.remove("b", "b1")
    queue.remove("a", "a9")
    queue.remove("d", "d1")
    assert popped(queue) == ["a1", "a2"]


def test_items_that_nobody_waits_for_are_dropped():
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "b1", "a2", "b2", "c1"):
        queue.push(item[0], item)
    queue.drop(lambda item: item in ("a1", "c1", "b2"))
    assert popped(queue) == ["a2", "b1"]


@given(st.lists(st.sampled_from("abcd"), max_size=40))
def test_nothing_is_lost_and_no_client_waits_for_two_of_another(clients):
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for number, client in enumerate(clients):
        queue.push(client, (client, number))
    order = [queue.pop() for _ in clients]
    assert sorted(order, key=lambda item: item[1]) == [(client, n) for n, client in enumerate(clients)]
    for client in set(clients):
        own = [at for at, item in enumerate(order) if item[0] == client]
        for before, after in pairwise(own):
            between = [item[0] for item in order[before + 1 : after]]
            assert len(between) == len(set(between))
