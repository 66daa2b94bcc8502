"""Sequences of different lengths: padding, and packing so that padding costs recurrence nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import tracecc as tc
from tracecc.lacking import unknown
from tracecc.tensor import Tensor
from tracecc.trace import suspended
from tracecc.trace.known import known

__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]


class _Packed(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None


class PackedSequence(_Packed):
    """All first elements of a batch of sequences, then all second ones, and so on.

    Attributes:
        data: [sum of lengths, ..].
        batch_sizes: int64 [longest]: how many sequences reach each step.
        sorted_indices: which sequence is the longest, second longest, ...; None if already sorted.
        unsorted_indices: the inverse permutation.
    """

    __slots__ = ()

    def lengths(self) -> list[int]:
        """The lengths, longest first."""
        sizes = numbers(self.batch_sizes)
        return [sum(n > i for n in sizes) for i in range(sizes[0])]

    def with_data(self, data: Tensor) -> PackedSequence:
        """The same packing of other data."""
        return PackedSequence(data, *self[1:])

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        return self.with_data(self.data.to(*args, **kwargs))

    def cpu(self) -> PackedSequence:
        return self

    def double(self) -> PackedSequence:
        return self.with_data(self.data.double())

    def float(self) -> PackedSequence:
        return self.with_data(self.data.float())


def numbers(t: Any) -> list[int]:
    """The ints of a list, or of a tensor whose numbers are known (see `known`)."""
    if isinstance(t, Tensor):
        return list(known(t, _integers, "the lengths"))
    return [int(v) for v in t]


def _integers(array: np.ndarray) -> tuple[int, ...]:
    return tuple(int(v) for v in array)


def _fixed(values: Sequence[int]) -> Tensor:
    """An int64 tensor that has numbers, even inside a trace."""
    with suspended():
        return tc.as_tensor(list(values), dtype=tc.int64)


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes ``permutation``."""
    if permutation is None:
        return None
    order = numbers(permutation)
    return _fixed([order.index(i) for i in range(len(order))])


def pad_sequence(
    sequences: Sequence[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Stacks sequences [length, ..] into [longest, N, ..], or [N, longest, ..] if ``batch_first``.

    >>> import tracecc as tc
    >>> pad_sequence([tc.tensor([1, 2]), tc.tensor([3])], batch_first=True)
    tensor([[1, 2],
            [3, 0]])
    """
    if padding_side not in ("left", "right"):
        raise RuntimeError(f"Expected padding_side to be either left or right, got {padding_side}")
    longest = max(int(s.shape[0]) for s in sequences)
    padded = []
    for s in sequences:
        rest = tc.full((longest - int(s.shape[0]), *s.shape[1:]), padding_value, dtype=s.dtype)
        padded.append(tc.cat([s, rest] if padding_side == "right" else [rest, s]))
    return tc.stack(padded, 0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: Tensor, lengths: Any, batch_first: bool = False
) -> list[Tensor]:
    """The inverse of `pad_sequence`."""
    x = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [x[i, :n] for i, n in enumerate(numbers(lengths))]


def _places(lengths: Sequence[int], n: int) -> list[int]:
    """For each packed element its place in [longest, n] flattened; ``lengths`` fall."""
    return [t * n + i for t in range(lengths[0]) for i in range(n) if lengths[i] > t]


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Packs [longest, N, ..] ([N, longest, ..] if ``batch_first``).

    Args:
        input: padded sequences.
        lengths: a list or a tensor; other lengths given to a compiled function retrace it.
        batch_first: whether the batch is dimension 0.
        enforce_sorted: the sequences come longest first.
    """
    x = input.transpose(0, 1) if batch_first else input
    given = numbers(lengths)
    n = int(x.shape[1])
    if len(given) != n:
        raise ValueError(f"Expected `len(lengths)` to be equal to batch_size {n}, got {len(given)}")
    if min(given) <= 0:
        raise RuntimeError(
            f"Length of all samples has to be greater than 0, but found {min(given)} in 'lengths'"
        )
    order, indices = given, None
    if enforce_sorted:
        if sorted(given, reverse=True) != given:
            raise RuntimeError(
                "`lengths` must be sorted in decreasing order when `enforce_sorted` is True, "
                f"given {given}; pass enforce_sorted=False"
            )
    else:
        by_length = sorted(range(n), key=lambda i: -given[i])
        indices = _fixed(by_length)
        order, x = [given[i] for i in by_length], x.index_select(1, indices)
    sizes = [sum(length > t for length in order) for t in range(order[0])]
    flat = x[: order[0]].reshape(order[0] * n, *x.shape[2:])
    data = flat.index_select(0, _fixed(_places(order, n)))
    return PackedSequence(data, _fixed(sizes), indices, invert_permutation(indices))


def padded(sequence: PackedSequence, value: float = 0.0, total: int | None = None) -> Tensor:
    """[longest, N, ..] in sorted order."""
    lengths = sequence.lengths()
    n, longest = len(lengths), total or lengths[0]
    places = _places(lengths, n)
    source = [len(places)] * (longest * n)
    for i, place in enumerate(places):
        source[place] = i
    rest = tc.full((1, *sequence.data.shape[1:]), value, dtype=sequence.data.dtype)
    rows = tc.cat([sequence.data, rest]).index_select(0, _fixed(source))
    return rows.reshape(longest, n, *sequence.data.shape[1:])


def repacked(sequence: PackedSequence, x: Tensor) -> PackedSequence:
    """``x`` [longest, N, ..] in sorted order, packed like ``sequence``."""
    lengths = sequence.lengths()
    flat = x.reshape(lengths[0] * len(lengths), *x.shape[2:])
    return sequence.with_data(flat.index_select(0, _fixed(_places(lengths, len(lengths)))))


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The inverse of `pack_padded_sequence`: padded sequences and their lengths."""
    lengths = sequence.lengths()
    if total_length is not None and total_length < lengths[0]:
        raise ValueError(
            "Expected total_length to be at least the length of the longest sequence in input, "
            f"but got total_length={total_length} and max sequence length being {lengths[0]}"
        )
    x = padded(sequence, padding_value, total_length)
    if sequence.unsorted_indices is not None:
        x = x.index_select(1, sequence.unsorted_indices)
        lengths = [lengths[i] for i in numbers(sequence.unsorted_indices)]
    return (x.transpose(0, 1) if batch_first else x), _fixed(lengths)


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Packs tensors [length, ..]."""
    lengths = [int(s.shape[0]) for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The inverse of `pack_sequence`."""
    x, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(x, lengths, batch_first=True)


def __getattr__(name: str) -> Any:
    raise unknown(__name__, name)
