"""Tensors as objects: creation, promotion, conversion, printing, copying, random streams."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

import tracecc as tc

torch = pytest.importorskip("torch")

NAMES = (
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
)


def public(dtype):
    return str(dtype).rpartition(".")[2]


def test_import_is_cheap():
    code = (
        "import sys, tracecc; heavy = [m for m in ('numba', 'llvmlite', 'torch', 'jax') "
        "if m in sys.modules]; print(heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def operands(lib):
    for name in NAMES:
        dtype = getattr(lib, name)
        yield lib.ones(2, dtype=dtype)
        yield lib.ones((), dtype=dtype)
    yield from (True, 2, 2.5)


def test_promotion_of_every_pair_of_dtypes_0d_tensors_and_numbers():
    for a, x in zip(operands(tc), operands(torch), strict=True):
        for b, y in zip(operands(tc), operands(torch), strict=True):
            if not isinstance(x, torch.Tensor) and not isinstance(y, torch.Tensor):
                continue
            assert public((a * b).dtype) == public((x * y).dtype), (x, y)
            assert public((a / b).dtype) == public((x / y).dtype), (x, y)
            assert tc.result_type(a, b).public == public(torch.result_type(x, y))
            assert (a == b).dtype is tc.bool


def test_default_dtype_decides_what_floats_become():
    tc.set_default_dtype(tc.float64)
    try:
        assert tc.tensor(1.5).dtype is tc.float64
        assert (tc.tensor([1]) / 2).dtype is tc.float64
        assert tc.zeros(1).dtype is tc.get_default_dtype()
    finally:
        tc.set_default_dtype(tc.float32)
    with pytest.raises(TypeError, match="only floating-point types"):
        tc.set_default_dtype(tc.int64)


def test_tensor_from_data():
    for data in (
        3,
        2.5,
        True,
        [],
        [1, 2],
        [[1.5], [2]],
        [True, 2],
        (1, 2),
        np.arange(3),
        np.float64(1),
    ):
        ours, theirs = tc.tensor(data), torch.tensor(data)
        assert public(ours.dtype) == public(theirs.dtype), data
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert tc.tensor([tc.tensor(1.0), 2.0]).tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="rectangular"):
        tc.tensor([[1, 2], [3]])
    with pytest.raises(TypeError, match="str"):
        tc.tensor("abc")
    with pytest.raises(TypeError, match=r"expected np\.ndarray"):
        tc.from_numpy([1])


def test_creation_checks_its_arguments():
    with pytest.raises(RuntimeError, match="negative dimension"):
        tc.zeros(2, -1)
    with pytest.raises(TypeError, match="sizes must be ints"):
        tc.zeros(2.5)
    with pytest.raises(RuntimeError, match="no CUDA backend on this machine"):
        tc.zeros(2, device="cuda")
    with pytest.raises(RuntimeError, match="no CUDA backend on this machine"):
        tc.zeros(2).cuda()
    with pytest.raises(RuntimeError, match="device string"):
        tc.device("abacus")
    assert repr(tc.device("cuda:1")) == "device(type='cuda', index=1)"
    assert tc.zeros(1).device == tc.device("cpu")


PRINTED = (
    1.0,
    [1.0, 2.5],
    [1e-6, 1.0],
    [1e10, 1.0],
    [float("nan"), float("inf"), -1.5],
    [[1, -20], [300, 4]],
    [True, False],
    list(range(30)),
    [0.1 * i for i in range(25)],
    np.arange(2000.0, dtype=np.float32),
    np.arange(4000).reshape(40, 100),
    np.zeros((0, 3), np.float32),
    np.arange(8.0).reshape(2, 2, 2),
    [100000.0, 0.5],
    [-1.0, 10.0, 0.0],
)


@pytest.mark.parametrize("k", range(len(PRINTED)))
def test_repr_is_pytorchs(k):
    data = PRINTED[k]
    assert repr(tc.tensor(data)) == repr(torch.tensor(data)).replace("torch.", "tracecc.")


def test_repr_shows_gradient_state():
    x = tc.ones(2, requires_grad=True)
    assert repr(x) == "tensor([1., 1.], requires_grad=True)"
    assert repr(x * 2) == "tensor([2., 2.], grad_fn=<MulBackward0>)"
    assert f"{tc.tensor(2.5):.2f}" == "2.50"


def test_python_protocols():
    x = tc.tensor([1.0, 2.0])
    assert len(x) == 2
    assert [v.item() for v in x] == [1.0, 2.0]
    assert 2.0 in x
    assert 5.0 not in x
    assert [10, 20, 30][tc.tensor(1)] == 20
    assert int(tc.tensor(3.7)) == 3
    assert float(tc.tensor(2)) == 2.0
    with pytest.raises(TypeError, match="only integer tensors"):
        [1][tc.tensor(0.0)]
    with pytest.raises(RuntimeError, match="ambiguous"):
        bool(x)
    with pytest.raises(TypeError, match="0-d"):
        iter(tc.tensor(1.0))
    with pytest.raises(TypeError, match="0-d"):
        len(tc.tensor(1.0))
    with pytest.raises(RuntimeError, match="cannot be converted to Scalar"):
        x.item()
    with pytest.raises(TypeError, match="unsupported operand"):
        x + "a"


def test_conversions():
    x = tc.tensor([0.0, 1.7, -2.5])
    for name in ("long", "int", "short", "half", "double", "float", "bool"):
        theirs = getattr(torch.tensor([0.0, 1.7, -2.5]), name)()
        ours = getattr(x, name)()
        assert public(ours.dtype) == public(theirs.dtype)
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert x.to("cpu") is x
    assert x.to("cpu", tc.float64).dtype is tc.float64
    assert x.to(tc.ones(1, dtype=tc.int8)).dtype is tc.int8
    assert x.type() == "tracecc.FloatTensor"
    with pytest.raises(RuntimeError, match="can't be cast"):
        tc.ones(2, dtype=tc.int64).add_(0.5)
    with pytest.raises(RuntimeError, match="doesn't match the broadcast shape"):
        tc.ones(2).add_(tc.ones(3, 2))


def test_size_counts_and_prints():
    x = tc.zeros(2, 3)
    assert x.shape == (2, 3)
    assert x.size(-1) == 3
    assert x.numel() == 6
    assert x.shape.numel() == 6
    assert repr(x.shape) == "tracecc.Size([2, 3])"
    assert x.stride() == (3, 1)
    assert x.t().stride() == (1, 3)
    with pytest.raises(IndexError, match="Dimension out of range"):
        x.size(2)


def test_pickle_and_deepcopy():
    x = tc.tensor([1.0, 2.0], requires_grad=True)
    (x * 2).sum().backward()
    for y in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
        assert tc.equal(x, y)
        assert y.requires_grad
        assert y is not x
        with tc.no_grad():
            y.zero_()
        assert x.tolist() == [1.0, 2.0]
    assert copy.deepcopy(x).grad.tolist() == [2.0, 2.0]
    first, second = copy.deepcopy([x, x])
    assert first is second
    with pytest.raises(RuntimeError, match="graph leaves"):
        copy.deepcopy(x * 2)
    half = tc.ones(2, dtype=tc.bfloat16)
    assert pickle.loads(pickle.dumps(half)).dtype is tc.bfloat16


def test_random_streams_repeat_and_advance():
    tc.manual_seed(5)
    a, b = tc.rand(4), tc.rand(4)
    assert not tc.equal(a, b)
    tc.manual_seed(5)
    assert tc.equal(a, tc.rand(4))
    state = tc.get_rng_state()
    assert tc.equal(b, tc.rand(4))
    tc.set_rng_state(state)
    assert tc.equal(b, tc.rand(4))
    assert tc.initial_seed() == 5
    g, h = tc.Generator().manual_seed(1), tc.Generator().manual_seed(1)
    tc.randn(3, generator=g)
    h = pickle.loads(pickle.dumps(g))
    assert tc.equal(tc.randn(3, generator=g), tc.randn(3, generator=h))


def test_random_distributions_have_their_moments():
    tc.manual_seed(0)
    n = 20000
    u, z = tc.rand(n), tc.randn(n)
    assert u.min().item() >= 0
    assert u.max().item() < 1
    assert abs(u.mean().item() - 0.5) < 0.01
    assert abs(u.var().item() - 1 / 12) < 0.003
    assert abs(z.mean().item()) < 0.02
    assert abs(z.var().item() - 1) < 0.03
    k = tc.randint(3, 7, (n,))
    assert k.dtype is tc.int64
    counts = tc.bincount(k, minlength=8).tolist()
    assert counts[:3] == [0, 0, 0]
    assert counts[7] == 0
    assert all(abs(c / n - 0.25) < 0.02 for c in counts[3:7])
    assert sorted(tc.randperm(50).tolist()) == list(range(50))
    p = tc.bernoulli(tc.full((n,), 0.3))
    assert abs(p.mean().item() - 0.3) < 0.02
    m = tc.multinomial(tc.tensor([0.0, 1.0, 3.0]), n, replacement=True)
    assert abs((m == 2).float().mean().item() - 0.75) < 0.02
    x = tc.empty(n).uniform_(-2, 2)
    assert x.min().item() >= -2
    assert x.max().item() < 2
    assert abs(tc.empty(n).normal_(3, 0.5).mean().item() - 3) < 0.02


def test_number_operands_take_no_memory():
    from tracecc.functional.core import splat

    constant = splat(1.0, (1000, 1000), tc.float32)
    assert constant.stride() == (0, 0)
    full = tc.full((2, 2), 3.0)
    full[0, 0] = 1
    assert full.tolist() == [[1.0, 3.0], [3.0, 3.0]]
