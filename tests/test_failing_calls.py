"""What a call that fails leaves behind: the tensors, gradients and random numbers of before."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import tracecc as tc
from tracecc import nn, optim

WRITES = {
    "add_ of another shape": lambda x: x.add_(tc.ones(2, 3)),
    "copy_ of another shape": lambda x: x.copy_(tc.ones(4)),
    "a slice of another shape": lambda x: x.__setitem__(slice(0, 2), tc.ones(3)),
    "an index out of range": lambda x: x.__setitem__(tc.tensor([0, 9]), 5.0),
    "index_put_": lambda x: x.index_put_((tc.tensor([1, 4]),), tc.zeros(2)),
    "index_add_": lambda x: x.index_add_(0, tc.tensor([0, 5]), tc.ones(2)),
    "index_fill_": lambda x: x.index_fill_(0, tc.tensor([0, 9]), 2.0),
    "scatter_": lambda x: x.scatter_(0, tc.tensor([0, 7]), tc.zeros(2)),
    "put_": lambda x: x.put_(tc.tensor([0, 9]), tc.zeros(2)),
    "masked_fill_": lambda x: x.masked_fill_(tc.tensor([True] * 4), 0.0),
    "unsqueeze_": lambda x: x.unsqueeze_(5),
    "normal_": lambda x: x.normal_(0.0, -1.0),
    "bernoulli_": lambda x: x.bernoulli_(1.5),
}


@pytest.mark.parametrize("name", WRITES)
def test_an_in_place_op_that_fails_writes_nothing_and_draws_nothing(name):
    x = tc.ones(3)
    version, stream = x._version, tc.get_rng_state()
    with pytest.raises((RuntimeError, IndexError)):
        WRITES[name](x)
    assert x.tolist() == [1.0, 1.0, 1.0]
    assert x.shape == (3,)
    assert x._version == version
    assert tc.equal(tc.get_rng_state(), stream)


def training(size):
    weight = nn.Parameter(tc.arange(size).float())
    optimizer = optim.SGD([weight], lr=0.5, momentum=0.9)
    head = tc.ones(2, 2)

    @tc.compile
    def step(index):
        optimizer.zero_grad()
        loss = (weight[index] * 2).tanh().sum() + (head @ head).sum()
        loss.backward()
        optimizer.step()
        return loss

    return weight, optimizer, step


@pytest.mark.parametrize("size", [3, 5000])
def test_a_compiled_step_with_a_wrong_index_updates_no_weight_and_no_momentum(size):
    weight, optimizer, step = training(size)
    step(tc.tensor([0, 1]))
    before = weight.detach().clone()
    momentum = optimizer.state[weight]["momentum_buffer"].clone()
    with pytest.raises(IndexError, match="step: an index is out of range"):
        step(tc.tensor([0, size]))
    assert tc.equal(weight.detach(), before)
    assert tc.equal(optimizer.state[weight]["momentum_buffer"], momentum)
    other, _, again = training(size)
    again(tc.tensor([0, 1]))
    for index in ([1, 2], [0, 2]):
        assert step(tc.tensor(index)).item() == again(tc.tensor(index)).item()
    np.testing.assert_array_equal(weight.detach().numpy(), other.detach().numpy())


def test_a_call_that_fails_while_it_is_traced_changes_nothing():
    counter, weight = tc.zeros(1), nn.Parameter(tc.ones(3))
    weight.grad = tc.ones(3)
    stream = tc.get_rng_state()

    def step(x):
        counter.add_(1)
        weight.grad = None
        return x @ tc.rand(4)

    with pytest.raises(RuntimeError, match=r"cannot be multiplied \(3 and 4\)"):
        tc.compile(step)(tc.ones(3))
    assert counter.tolist() == [0.0]
    assert weight.grad.tolist() == [1.0, 1.0, 1.0]
    assert tc.equal(tc.get_rng_state(), stream)
    assert (tc.ones(2) + 1).tolist() == [2.0, 2.0]


def test_an_optimizer_that_refuses_a_state_keeps_its_own():
    p = nn.Parameter(tc.ones(2))
    optimizer = optim.Adam([p], lr=0.1)
    p.grad = tc.ones(2)
    optimizer.step()
    before = str(optimizer.state_dict())
    wrong = copy.deepcopy(optimizer.state_dict())
    wrong["param_groups"][0]["lr"] = 7.0
    wrong["param_groups"].append(dict(wrong["param_groups"][0]))
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict(wrong)
    with pytest.raises(TypeError, match="got int"):
        optimizer.add_param_group({"params": [nn.Parameter(tc.ones(1)), 3]})
    assert str(optimizer.state_dict()) == before


def test_a_module_that_refuses_a_change_keeps_what_it_has():
    layer = nn.Linear(2, 2)
    weight = layer.weight
    with pytest.raises(TypeError):
        layer.weight = 3
    with pytest.raises(KeyError):
        layer.register_buffer("weight", tc.ones(1))
    with pytest.raises(TypeError):
        layer.to(tc.int32)
    assert layer.weight is weight
    assert weight.dtype is tc.float32
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_grad_mode_is_restored_after_an_exception():
    def closure():
        raise KeyError("mine")

    with pytest.raises(KeyError):
        optim.SGD([nn.Parameter(tc.ones(1))], lr=0.1).step(closure)
    with pytest.raises(KeyError), tc.no_grad():
        closure()
    assert tc.is_grad_enabled()
