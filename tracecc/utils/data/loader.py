"""DataLoader: batches of a dataset, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

import tracecc as tc
from tracecc.tensor import Tensor
from tracecc.utils.data.dataset import IterableDataset, TensorDataset
from tracecc.utils.data.sampler import BatchSampler, RandomSampler, SequentialSampler


def default_collate(batch: list[Any]) -> Any:
    """Stacks samples: tensors, arrays and numbers become tensors with a batch dimension in front.

    >>> default_collate([(1, "a"), (2, "b")])
    [tensor([1, 2]), ('a', 'b')]
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return tc.stack(batch)
    if isinstance(first, (np.ndarray, np.generic)):
        return tc.from_numpy(np.stack(batch))
    if isinstance(first, float):
        return tc.as_tensor(batch, dtype=tc.float64)
    if isinstance(first, int):
        return tc.as_tensor(batch)
    if isinstance(first, Mapping):
        return {key: default_collate([sample[key] for sample in batch]) for key in first}
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(default_collate(list(column)) for column in zip(*batch, strict=True)))
    if isinstance(first, (tuple, list)):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        columns = [tuple(column) for column in zip(*batch, strict=True)]
        return [c if isinstance(c[0], str) else default_collate(list(c)) for c in columns]
    if isinstance(first, (str, bytes)):
        return batch
    raise TypeError(
        "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; "
        f"found {type(first).__name__}"
    )


def default_convert(data: Any) -> Any:
    """Arrays as tensors, in containers too; what a DataLoader without batches does to samples."""
    if isinstance(data, (np.ndarray, np.generic)) and data.dtype.kind not in "SUO":
        return tc.as_tensor(data)
    if isinstance(data, Mapping):
        return {key: default_convert(value) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*map(default_convert, data))
    if isinstance(data, (tuple, list)):
        return [default_convert(value) for value in data]
    return data


def get_worker_info() -> None:
    """None: samples are loaded in this process."""
    return None


_FIXED = ("dataset", "batch_size", "sampler", "batch_sampler", "drop_last")


def _check_workers(workers: int, timeout: float, prefetch: int | None, persistent: bool) -> None:
    """Refuses what PyTorch refuses, although samples are loaded in this process."""
    if workers < 0:
        raise ValueError(f"num_workers should be non-negative, given {workers}")
    if timeout < 0:
        raise ValueError(f"timeout should be non-negative, given {timeout}")
    if workers == 0 and prefetch is not None:
        raise ValueError(f"prefetch_factor={prefetch} needs num_workers > 0, given 0")
    if workers == 0 and persistent:
        raise ValueError("persistent_workers=True needs num_workers > 0, given 0")


class DataLoader:
    """Iterates over a dataset in batches.

    Args:
        dataset: with ``__getitem__`` and ``__len__``, or an IterableDataset.
        batch_size: samples per batch; None for single samples without a batch dimension.
        shuffle: a new random order at each pass.
        sampler: the order instead; excludes ``shuffle``.
        batch_sampler: lists of indices instead; excludes all of the above and ``drop_last``.
        num_workers: accepted; samples are loaded in this process.
        collate_fn: from a list of samples to a batch; by default `default_collate`.
        drop_last: leave out an incomplete last batch.
        generator: the random stream of ``shuffle``.

    >>> import tracecc as tc
    >>> data = tc.utils.data.TensorDataset(tc.arange(5))
    >>> [x.tolist() for (x,) in DataLoader(data, batch_size=2)]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[list[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable | None = None,
        multiprocessing_context: Any = None,
        generator: tc.Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ):
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers)
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None and (batch_size != 1 or shuffle or sampler or drop_last):
            raise ValueError(
                "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, "
                "and drop_last"
            )
        if batch_size is None and drop_last:
            raise ValueError("batch_size=None makes no batches, so drop_last=True has no meaning")
        self.dataset, self.batch_size, self.drop_last = dataset, batch_size, drop_last
        self.collate_fn, self.generator = collate_fn, generator
        self._streams = isinstance(dataset, IterableDataset)
        if self._streams and (shuffle or sampler is not None or batch_sampler is not None):
            raise ValueError(
                "an IterableDataset is read in its own order: drop shuffle and sampler"
            )
        if sampler is None and not self._streams:
            sampler = (
                RandomSampler(dataset, generator=generator)
                if shuffle
                else SequentialSampler(dataset)
            )
        self.sampler = sampler
        if batch_sampler is None and batch_size is not None and sampler is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_sampler = batch_sampler

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and name in self.__dict__:
            raise ValueError(f"{name} attribute should not be set after DataLoader is initialized")
        super().__setattr__(name, value)

    def __iter__(self) -> Iterator[Any]:
        if self._streams:
            yield from self._stream()
        elif self.batch_sampler is not None:
            for indices in self.batch_sampler:
                yield self._fetch(indices)
        else:
            for index in self.sampler or ():
                sample = self.dataset[index]
                yield sample if self.collate_fn is None else self.collate_fn(sample)

    def _fetch(self, indices: list[int]) -> Any:
        if type(self.dataset) is TensorDataset and self.collate_fn is None:
            return list(self.dataset.__getitems__(indices))
        return self._collate([self.dataset[i] for i in indices])

    def _collate(self, batch: list[Any]) -> Any:
        return (self.collate_fn or default_collate)(batch)

    def _stream(self) -> Iterator[Any]:
        batch: list[Any] = []
        for sample in self.dataset:
            if self.batch_size is None:
                yield sample
                continue
            batch.append(sample)
            if len(batch) == self.batch_size:
                yield self._collate(batch)
                batch = []
        if batch and not self.drop_last:
            yield self._collate(batch)

    def __len__(self) -> int:
        """The number of batches."""
        if self._streams:
            raise TypeError("a DataLoader over an IterableDataset has no length")
        return len(self.sampler if self.batch_sampler is None else self.batch_sampler)  # type: ignore[arg-type]
