"""A queue in which clients take turns."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items of several clients: those of one client come in order, and clients take turns.

    A client with many items in the queue does not delay one that has a single item.
    """

    def __init__(self) -> None:
        self._of_clients: OrderedDict[str, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._of_clients.values()))

    def push(self, client: str, item: T) -> None:
        """Add an item."""
        self._of_clients.setdefault(client, deque()).append(item)

    def pop(self) -> T:
        """Take the next item.

        Raises:
            IndexError: there is none.
        """
        if not self._of_clients:
            raise IndexError("pop from an empty queue")
        client, items = next(iter(self._of_clients.items()))
        item = items.popleft()
        if items:
            self._of_clients.move_to_end(client)
        else:
            del self._of_clients[client]
        return item

    def drop(self, is_over: Callable[[T], bool]) -> None:
        """Remove the items that nobody waits for any more."""
        for client, items in [*self._of_clients.items()]:
            left = deque(item for item in items if not is_over(item))
            if left:
                self._of_clients[client] = left
            else:
                del self._of_clients[client]

    def remove(self, client: str, item: T) -> None:
        """Remove an item, if it is in the queue."""
        items = self._of_clients.get(client, deque())
        if item in items:
            items.remove(item)
            if not items:
                del self._of_clients[client]
