"""Views share memory as PyTorch's do: what makes them, and what writes through them show."""

import numpy as np
import pytest

import tracecc as tc

torch = pytest.importorskip("torch")

VIEWS = {
    "int": lambda x: x[1],
    "slice": lambda x: x[1:, ::2],
    "none": lambda x: x[:, None],
    "ellipsis": lambda x: x[..., -1],
    "view": lambda x: x.view(2, 12),
    "flat": lambda x: x.view(-1),
    "reshape": lambda x: x.reshape(6, 4),
    "permute": lambda x: x.permute(2, 0, 1),
    "transpose": lambda x: x.transpose(0, 2),
    "T of a row": lambda x: x[0].T,
    "mT": lambda x: x.mT,
    "movedim": lambda x: x.movedim(0, -1),
    "squeeze": lambda x: x[:, :1].squeeze(1),
    "unsqueeze": lambda x: x.unsqueeze(-1),
    "flatten": lambda x: x.flatten(1),
    "unflatten": lambda x: x.unflatten(2, (2, 2)),
    "narrow": lambda x: x.narrow(1, 1, 2),
    "select": lambda x: x.select(2, 3),
    "split": lambda x: x.split(2, dim=2)[1],
    "chunk": lambda x: x.chunk(2, 1)[0],
    "tensor_split": lambda x: x.tensor_split(3, 2)[1],
    "unbind": lambda x: x.unbind(1)[2],
    "diagonal": lambda x: x.diagonal(0, 1, 2),
    "diagonal below": lambda x: x.diagonal(-1, 1, 2),
    "chain": lambda x: x.transpose(0, 1)[1:].unsqueeze(0)[:, :, 1],
    "detach": lambda x: x.detach(),
    "view_as": lambda x: x.view_as(x),
}

MANY = (
    "split",
    "chunk",
    "tensor_split",
    "unbind",
)  # PyTorch refuses differentiated writes to these


def pair():
    array = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    return tc.from_numpy(array.copy()), torch.from_numpy(array.copy())


def check(ours, theirs):
    np.testing.assert_array_equal(ours.detach().numpy(), theirs.detach().numpy())


@pytest.mark.parametrize("name", VIEWS)
def test_view_aliases_both_ways(name):
    x, t = pair()
    v, w = VIEWS[name](x), VIEWS[name](t)
    assert tuple(v.shape) == tuple(w.shape)
    check(v, w)
    v.mul_(-2)
    w.mul_(-2)
    check(x, t)
    x += 100
    t += 100
    check(v, w)
    v[...] = 5
    w[...] = 5
    check(x, t)
    assert v._version == x._version


@pytest.mark.parametrize("name", [n for n in VIEWS if n not in (*MANY, "detach")])
def test_write_through_view_is_differentiated(name):
    array = np.random.default_rng(0).standard_normal((2, 3, 4))

    def run(lib):
        leaf = lib.from_numpy(array.copy()).requires_grad_(True)
        x = leaf * 1
        v = VIEWS[name](x)
        v.mul_(v.detach() + 3)
        v += 2
        (x * x).sum().backward()
        return x, leaf.grad

    for a, b in zip(run(tc), run(torch), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12)


def test_copies_are_not_views():
    makers = {
        "clone": lambda x: x.clone(),
        "flip": lambda x: x.flip(0),
        "advanced": lambda x: x[[0, 1]],
        "mask": lambda x: x[x >= 0],
        "repeat": lambda x: x.repeat(1, 1, 1),
        "contiguous": lambda x: x.permute(2, 0, 1).contiguous(),
        "reshape of a transpose": lambda x: x.permute(2, 0, 1).reshape(-1),
        "cat of one": lambda x: tc.cat([x]),
        "roll by nothing": lambda x: x.roll(0, 0),
        "index_select": lambda x: x.index_select(0, tc.tensor([0, 1])),
        "sum over nothing": lambda x: x[:1].sum(()) if x is None else x.unsqueeze(0).sum(0),
        "copy to": lambda x: x.to(tc.float32, copy=True),
        "einsum": lambda x: tc.einsum("abc->abc", x),
        "broadcast sum": lambda x: tc.tensor(x),
        "topk of all": lambda x: x.topk(4).values,
        "where": lambda x: tc.where(x > -1, x, x),
        "tril": lambda x: x.tril(),
        "diag_embed": lambda x: x.diag_embed(),
    }
    for name, make in makers.items():
        x, _ = pair()
        y = make(x)
        before = x.clone()
        y.zero_()
        assert tc.equal(x, before), name


def test_same_tensor_where_nothing_changes():
    x, _ = pair()
    assert x.contiguous() is x
    assert x.to(tc.float32) is x
    assert x.float() is x
    assert x.cpu() is x
    assert x.flatten(1, 1) is x


def test_expand_uses_no_memory_and_refuses_writes():
    x = tc.arange(3)
    e = x.expand(1000, 3)
    assert e.stride() == (0, 1)
    assert e.data_ptr() == x.data_ptr()
    with pytest.raises(RuntimeError, match=r"single memory location|cannot be written"):
        e.add_(1)
    x[0] = 7
    assert e[999].tolist() == [7, 1, 2]


def test_view_of_incompatible_strides_is_refused():
    x = tc.zeros(3, 4)
    with pytest.raises(RuntimeError, match="use reshape"):
        x.t().view(12)
    assert x.t().reshape(12).shape == (12,)
    with pytest.raises(RuntimeError, match="invalid for input of size 12"):
        x.view(5, -1)


def test_numpy_and_dlpack_share_memory():
    a = np.arange(4.0, dtype=np.float32)
    t = tc.from_numpy(a)
    t[0] = 9
    assert a[0] == 9
    assert np.shares_memory(t.numpy(), a)
    assert np.shares_memory(np.asarray(t), a)
    b = np.from_dlpack(t)
    b[1] = 8
    assert t.tolist() == [9.0, 8.0, 2.0, 3.0]
    u = torch.from_dlpack(t)
    u[2] = 7
    v = tc.from_dlpack(torch.arange(3))
    assert t[2].item() == 7
    assert v.tolist() == [0, 1, 2]
    with pytest.raises(RuntimeError, match="requires grad"):
        tc.ones(2, requires_grad=True).numpy()
    with pytest.raises(BufferError, match="require gradient"):
        np.from_dlpack(tc.ones(2, requires_grad=True))


def test_read_only_arrays_are_refused_on_write_only():
    a = np.zeros(3)
    a.flags.writeable = False
    t = tc.from_numpy(a)
    assert t.sum().item() == 0
    with pytest.raises(RuntimeError, match="cannot be written"):
        t.add_(1)


def test_overlapping_copy_within_one_tensor():
    x, t = tc.arange(6), torch.arange(6)
    x[1:] = x[:-1].clone()
    t[1:] = t[:-1].clone()
    check(x, t)


def test_shape_changing_in_place_keeps_memory():
    x = tc.arange(6).reshape(2, 3)
    y = x.t_()
    assert y is x
    assert x.shape == (3, 2)
    x.unsqueeze_(0)
    assert x.shape == (1, 3, 2)
    assert x.squeeze_().tolist() == [[0, 3], [1, 4], [2, 5]]


def test_view_as_another_dtype_shares_bits():
    x = tc.ones(2)
    bits = x.view(tc.int32)
    assert bits.tolist() == [0x3F800000] * 2
    bits[0] = 0
    assert x.tolist() == [0.0, 1.0]


def test_views_of_leaves_report_their_base_history():
    x = tc.ones(4, requires_grad=True)
    v = x[1:3]
    assert not v.is_leaf
    assert v.requires_grad
    v.sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]
