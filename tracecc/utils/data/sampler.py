"""Samplers: in which order a DataLoader visits a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tracecc as tc


def _check_count(name: str, n: Any) -> None:
    if not isinstance(n, int) or isinstance(n, bool) or n <= 0:
        raise ValueError(f"{name} should be a positive integer value, but got {name}={n}")


class Sampler:
    """Base class: define ``__iter__`` over indices."""

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__()")


class SequentialSampler(Sampler):
    """In order."""

    def __init__(self, data_source: Any):
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler):
    """In random order; ``generator`` makes it repeatable."""

    def __init__(
        self,
        data_source: Any,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: tc.Generator | None = None,
    ):
        self.data_source, self.replacement, self.generator = data_source, replacement, generator
        self._num_samples = num_samples
        _check_count("num_samples", self.num_samples)

    @property
    def num_samples(self) -> int:
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        n, left = len(self.data_source), self.num_samples
        if self.replacement:
            yield from tc.randint(0, n, (left,), generator=self.generator).tolist()
            return
        while left > 0:
            order = tc.randperm(n, generator=self.generator).tolist()[:left]
            yield from order
            left -= len(order)

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler):
    """Given indices, in random order."""

    def __init__(self, indices: Sequence[int], generator: tc.Generator | None = None):
        self.indices, self.generator = list(indices), generator

    def __iter__(self) -> Iterator[int]:
        for i in tc.randperm(len(self.indices), generator=self.generator).tolist():
            yield self.indices[i]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler):
    """Indices drawn in proportion to ``weights``."""

    def __init__(
        self,
        weights: Sequence[float],
        num_samples: int,
        replacement: bool = True,
        generator: tc.Generator | None = None,
    ):
        _check_count("num_samples", num_samples)
        if not isinstance(replacement, bool):
            raise ValueError(f"replacement should be a bool, but got replacement={replacement}")
        self.weights = tc.as_tensor(list(weights), dtype=tc.float64)
        self.num_samples, self.replacement, self.generator = num_samples, replacement, generator
        if not replacement and num_samples > len(self.weights):
            raise ValueError(
                f"cannot draw {num_samples} of {len(self.weights)} samples without replacement"
            )

    def __iter__(self) -> Iterator[int]:
        if self.replacement:
            ends = self.weights.cumsum(0)
            at = tc.rand(self.num_samples, dtype=tc.float64, generator=self.generator) * ends[-1]
            yield from (at.unsqueeze(1) >= ends.unsqueeze(0)).sum(1).tolist()
            return
        # The order of exponential arrival times is a draw without replacement.
        waits = -tc.log1p(-tc.rand(len(self.weights), dtype=tc.float64, generator=self.generator))
        yield from (waits / self.weights).argsort()[: self.num_samples].tolist()

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler):
    """Lists of ``batch_size`` indices of another sampler."""

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool):
        _check_count("batch_size", batch_size)
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        n = len(self.sampler)  # type: ignore[arg-type]
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)


class DistributedSampler(Sampler):
    """This process's share of a dataset's indices: every ``num_replicas``-th from ``rank``.

    Call ``set_epoch`` before each pass for another order. Shares are made equally long by repeating
    indices from the start, or by leaving some out if ``drop_last`` is set.
    """

    def __init__(
        self,
        dataset: Any,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ):
        self.num_replicas = 1 if num_replicas is None else num_replicas
        self.rank = 0 if rank is None else rank
        if not 0 <= self.rank < self.num_replicas:
            raise ValueError(
                f"Invalid rank {self.rank}, rank should be in the interval "
                f"[0, {self.num_replicas - 1}]"
            )
        self.dataset, self.shuffle, self.seed, self.drop_last = dataset, shuffle, seed, drop_last
        self.epoch = 0

    @property
    def num_samples(self) -> int:
        n = len(self.dataset)
        return n // self.num_replicas if self.drop_last else -(-n // self.num_replicas)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = list(range(len(self.dataset)))
        if self.shuffle:
            generator = tc.Generator().manual_seed(self.seed + self.epoch)
            order = tc.randperm(len(order), generator=generator).tolist()
        total = self.num_samples * self.num_replicas
        repeated = order * -(-total // max(1, len(order)))
        return iter(repeated[self.rank : total : self.num_replicas])

    def __len__(self) -> int:
        return self.num_samples
