"""What steps are fed, made ahead by worker processes: the same numbers as made at once; needs torch.

A step is a pure function of its number, so any process can make any step, in any order, and a resumed or rewound run is
fed as the unbroken one was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

Fed = TypeVar("Fed")


class Feed(Generic[Fed]):
    """``make(step)`` for one step after the other.

    Args:
        make: a pure function that other processes can be sent (no lambda), and so can what it returns.
        workers: processes that work ahead; 0 makes every step when it is asked for.
    """

    def __init__(self, make: Callable[[int], Fed], workers: int = 0) -> None:
        self._make = make
        self._workers = workers
        self._next = -1
        self._steps: Iterator[Fed] = iter(())

    def at(self, step: int) -> Fed:
        """What ``step`` is fed; steps that follow each other come soonest."""
        if not self._workers:
            return self._make(step)
        if step != self._next:
            self.close()
            self._steps = iter(self._loader(step))
        self._next = step + 1
        return next(self._steps)

    def close(self) -> None:
        """Stop the workers; another step starts them again."""
        self._next, self._steps = -1, iter(())

    def _loader(self, first: int) -> DataLoader[Fed]:
        return DataLoader(
            _Steps(self._make),
            batch_size=None,
            sampler=count(first),  # any iterable will do
            num_workers=self._workers,
            collate_fn=_as_it_is,
            # A forked child of a process with threads, or with a GPU, may stand still.
            multiprocessing_context="spawn",
        )


class _Steps(Dataset[Fed]):
    def __init__(self, make: Callable[[int], Fed]) -> None:
        self.make = make

    def __getitem__(self, step: int) -> Fed:
        return self.make(step)


def _as_it_is(fed: Fed) -> Fed:
    return fed
