"""Datasets, samplers and the DataLoader: every sample once, in the order asked for."""

import numpy as np
import pytest

import tracecc as tc
from tracecc.utils import data


def rows(n=10):
    return data.TensorDataset(tc.arange(n), tc.arange(n) * 2.0)


def test_batches_cover_the_dataset_in_order():
    batches = list(data.DataLoader(rows(), batch_size=4))
    assert [x.tolist() for x, _ in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert batches[0][1].dtype is tc.float32
    assert len(data.DataLoader(rows(), batch_size=4)) == 3


def test_drop_last_leaves_out_the_short_batch():
    loader = data.DataLoader(rows(), batch_size=4, drop_last=True)
    assert [len(x) for x, _ in loader] == [4, 4]
    assert len(loader) == 2


def order(loader):
    return [i for x, _ in loader for i in x.tolist()]


def test_shuffling_visits_each_sample_once_and_repeats_under_a_seed():
    loader = data.DataLoader(rows(50), 7, shuffle=True, generator=tc.Generator().manual_seed(1))
    first, second = order(loader), order(loader)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    again = data.DataLoader(rows(50), 7, shuffle=True, generator=tc.Generator().manual_seed(1))
    assert order(again) == first


def test_collate_builds_nested_batches():
    samples = [{"x": np.ones(2, np.float32) * i, "y": (i, 0.5, "name")} for i in range(3)]
    batch = next(iter(data.DataLoader(samples, batch_size=3)))
    assert batch["x"].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert batch["y"][0].tolist() == [0, 1, 2]
    assert batch["y"][1].dtype is tc.float64
    assert batch["y"][2] == ("name", "name", "name")


def test_a_collate_function_a_sampler_and_a_batch_sampler_are_used():
    assert list(data.DataLoader([1, 2, 3], 2, collate_fn=sum)) == [3, 3]
    assert order(data.DataLoader(rows(), 2, sampler=[3, 1, 7])) == [3, 1, 7]
    batches = data.DataLoader(rows(), batch_sampler=[[0, 9], [5]])
    assert [x.tolist() for x, _ in batches] == [[0, 9], [5]]
    assert [int(x) for x, _ in data.DataLoader(rows(3), batch_size=None)] == [0, 1, 2]


def test_streams_are_batched():
    class Stream(data.IterableDataset):
        def __iter__(self):
            return iter(range(5))

    assert [b.tolist() for b in data.DataLoader(Stream(), 2)] == [[0, 1], [2, 3], [4]]


def test_splits_are_disjoint_and_complete():
    for lengths in ([7, 3], [0.7, 0.3]):
        a, b = data.random_split(rows(), lengths, tc.Generator().manual_seed(0))
        assert (len(a), len(b)) == (7, 3)
        assert sorted(int(x) for x, _ in [*a, *b]) == list(range(10))
    with pytest.raises(ValueError, match="does not equal"):
        data.random_split(rows(), [1, 2])


def test_concatenation_and_subsets_index_through():
    both = rows(3) + rows(2)
    assert [int(both[i][0]) for i in range(len(both))] == [0, 1, 2, 0, 1]
    assert int(both[-1][0]) == 1
    assert [int(x) for x, _ in data.Subset(rows(), [4, 2])] == [4, 2]


def test_weighted_sampling_follows_the_weights():
    tc.manual_seed(0)
    drawn = list(data.WeightedRandomSampler([0.0, 1.0, 3.0], 4000))
    counts = np.bincount(drawn, minlength=3) / 4000
    np.testing.assert_allclose(counts, [0, 0.25, 0.75], atol=0.03)
    assert sorted(data.WeightedRandomSampler([1.0, 2.0, 3.0], 3, replacement=False)) == [0, 1, 2]


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match="mutually exclusive"):
        data.DataLoader(rows(), shuffle=True, sampler=[1])
    with pytest.raises(ValueError, match="mutually exclusive"):
        data.DataLoader(rows(), batch_size=2, batch_sampler=[[1]])
    with pytest.raises(AssertionError, match="Size mismatch"):
        data.TensorDataset(tc.zeros(2), tc.zeros(3))
