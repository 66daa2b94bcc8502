"""Loops whose rows do not meet: threads take rows through all turns, with the same results."""

import numpy as np
import pytest

import tracecc as tc
from tracecc import nn
from tracecc.backends.cpu import lower
from tracecc.backends.schedule_shares import share


@pytest.fixture(params=[2, 3])
def threads(request, monkeypatch):
    """Plans are made for so many threads, whatever the machine has."""
    monkeypatch.setattr(lower.config, "num_threads", lambda: request.param)
    return request.param


def compiled(function, *inputs):
    """The results of a compiled call, and whether a loop of it is shared by rows."""
    step = tc.compile(function)
    found = step(*inputs)
    launches = [b.launch for b in step._last.forward._bound]
    return found, any(launch.share is not None for launch in launches)


def train(model, x):
    """Loss, result and gradients of one call, eager and compiled."""

    def step(x):
        model.zero_grad()
        y = model(x)[0]
        loss = (y * y).mean()
        loss.backward()
        return loss, y.detach(), [p.grad for p in model.parameters()]

    (loss, y, gradients), shared = compiled(step, x)
    expected_loss, expected, expected_gradients = step(x)
    np.testing.assert_allclose(loss.item(), expected_loss.item(), rtol=1e-5)
    np.testing.assert_allclose(y.numpy(), expected.numpy(), atol=2e-6)
    for g, e in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(g.numpy(), e.numpy(), atol=1e-5, rtol=1e-4)
    return shared


@pytest.mark.parametrize("batch", [8, 32, 33, 47, 130])
@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_of_any_batch_are_shared_and_right(layer, batch, threads):
    tc.manual_seed(0)
    shared = train(layer(5, 12, batch_first=True), tc.randn(batch, 6, 5))
    assert shared == (batch >= 4 * threads)


def test_two_layers_in_both_directions(threads):
    tc.manual_seed(0)
    assert train(nn.LSTM(6, 10, num_layers=2, bidirectional=True), tc.randn(5, 40, 6))


@pytest.mark.parametrize("rows", [16, 29, 64])
@pytest.mark.parametrize("inner", [(), (3,)])
def test_a_scan_of_products_and_reductions_in_rows(rows, inner, threads):
    tc.manual_seed(0)
    weight, start = tc.randn(7, 7), tc.randn(rows, *inner, 7)
    xs = tc.randn(9, rows, *inner, 7)

    def turn(h, x):
        h = tc.softmax(h @ weight + x, -1)
        return h, h.sum(-1)

    (last, sums), shared = compiled(lambda s, x: tc.scan(turn, s, x), start, xs)
    h = start
    for t, x in enumerate(xs):
        h, total = turn(h, x)
        np.testing.assert_allclose(sums[t].numpy(), total.numpy(), atol=1e-6)
    np.testing.assert_allclose(last.numpy(), h.numpy(), atol=1e-6)
    assert shared


@pytest.mark.parametrize(
    "meet",
    [
        lambda h, x: h - h.mean(0) + x,
        lambda h, x: h.flip(0) + x,
        lambda h, x: h.cumsum(0) * 0.5 + x,
        lambda h, x: h + tc.roll(x, 1, 0),
        lambda h, x: h @ h.T @ x,
    ],
    ids=["mean", "flip", "cumsum", "roll", "product"],
)
def test_rows_that_meet_are_not_shared(meet, threads):
    tc.manual_seed(0)
    start, xs = tc.randn(32, 4), tc.randn(5, 32, 4) * 0.1

    def turn(h, x):
        h = tc.tanh(meet(h, x))
        return h, h

    (last, _), shared = compiled(lambda s, x: tc.scan(turn, s, x), start, xs)
    h = start
    for x in xs:
        h, _ = turn(h, x)
    np.testing.assert_allclose(last.numpy(), h.numpy(), atol=2e-6)
    assert not shared


def test_a_loop_in_a_loop(threads):
    tc.manual_seed(0)
    weight, start, xs = tc.randn(6, 6) * 0.3, tc.randn(24, 6), tc.randn(3, 4, 24, 6)

    def inner(h, x):
        h = tc.tanh(h @ weight + x)
        return h, h

    def outer(h, x):
        h, seen = tc.scan(inner, h - h.mean(), x)
        return h, seen.sum(0)

    (last, seen), shared = compiled(lambda s, x: tc.scan(outer, s, x), start, xs)
    expected, found = tc.scan(outer, start, xs)
    np.testing.assert_allclose(last.numpy(), expected.numpy(), atol=2e-6)
    np.testing.assert_allclose(seen.numpy(), found.numpy(), atol=2e-6)
    assert shared


def test_the_same_bits_with_and_without_shares(monkeypatch):
    tc.manual_seed(0)
    model, x = nn.LSTM(9, 20, batch_first=True), tc.randn(50, 7, 9)
    results = []
    for count in (1, 2, 4):
        monkeypatch.setattr(lower.config, "num_threads", lambda count=count: count)
        (y, _), shared = compiled(lambda x: model(x), x)
        results.append(y.detach().numpy())
        assert shared == (count > 1)
    for y in results[1:]:
        np.testing.assert_array_equal(y, results[0])


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 31, 32, 100, 1000, 4097])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shares_cover_the_rows_in_whole_panels(rows, count):
    cut = share(rows, count, 14)
    if cut is None:
        assert count == 1 or rows < 4 * count
        return
    parts = -(-rows // cut.each)
    panel = max(p for p in range(1, 15) if cut.each % p == 0)
    assert cut.each * parts >= rows
    assert cut.each * (parts - 1) < rows
    assert panel >= min(4, cut.each)
    assert parts >= min(count, 2)
