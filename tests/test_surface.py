"""Smaller parts of PyTorch's API that programs touch: modes, typed constructors, pruning, hooks."""

import copy

import numpy as np
import pytest

import tracecc as tc
from tracecc import nn

torch = pytest.importorskip("torch")
pytest.importorskip("torch.nn.utils.prune")
LIBRARIES = (tc, torch)
X = np.random.default_rng(0).standard_normal((4, 6)).astype("float32")


def same(function, tolerance=1e-6):
    """Compares the numbers of one function of a library in both."""
    found, expected = (function(library) for library in LIBRARIES)
    for a, b in zip(found, expected, strict=True):
        a, b = (np.asarray(t.detach() if hasattr(t, "detach") else t) for t in (a, b))
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, tolerance, tolerance)


def test_memory_by_strides():
    same(
        lambda t: [t.empty_strided((2, 3), (1, 2)).stride(), t.empty_strided((2, 0), (1, 1)).shape]
    )
    same(lambda t: [t.empty_permuted((2, 3, 4), (0, 2, 1)).stride()])
    same(lambda t: [t.ones(2).double().new_empty_strided((2, 2), (1, 2)).fill_(3.0)])
    assert tc.ones(2).double().new_empty_strided((2,), (1,)).dtype is tc.float64
    with pytest.raises(RuntimeError, match="one stride >= 0 for each size"):
        tc.empty_strided((2, 3), (1,))
    with pytest.raises(RuntimeError, match="each of 3 dimensions once"):
        tc.empty_permuted((2, 3, 4), (0, 0, 1))


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (7, 3), (3, 3, 3)])
@pytest.mark.parametrize("wrap", [False, True])
def test_diagonals_are_filled_where_pytorch_fills_them(shape, wrap):
    same(lambda t: [t.zeros(shape).fill_diagonal_(5, wrap)])
    with pytest.raises(RuntimeError, match="a matrix"):
        tc.zeros(3).fill_diagonal_(1)


def test_put_writes_and_accumulates_in_place_with_gradients():
    def put(t):
        x = t.tensor(X, requires_grad=True)
        v = t.tensor([1.0, 2.0, 3.0], requires_grad=True)
        y = (x * 1).put_(t.tensor([1, 4, 7]), v).put_(t.tensor([4, 4]), v[:2], accumulate=True)
        y.square().sum().backward()
        return [y, x.grad, v.grad]

    same(put)


def test_functions_in_place():
    names = "abs_ ceil_ cos_ deg2rad_ erf_ exp_ floor_ neg_ relu_ sigmoid_ sin_ square_ tanh_ zero_"
    for name in names.split():
        x = tc.tensor(X)
        assert getattr(tc, name)(x) is x
        np.testing.assert_allclose(x, getattr(torch, name)(torch.tensor(X)), 1e-5, 1e-6)
    same(lambda t: [t.clamp_(t.tensor(X), -0.5, 0.5), t.fill_(t.zeros(2), 3.0)])


def test_facts_of_tensors():
    def facts(t):
        x = t.tensor(X)
        return [
            x.is_same_size(t.ones(4, 6)), x.is_set_to(x.view(4, 6)), x.is_set_to(x[1:]),
            t.is_nonzero(t.tensor(2)), t.is_nonzero(t.tensor([0.0])), x.is_cpu, x.is_meta,
            x.is_quantized, x.is_neg(), x.is_inference(), x.output_nr, x.get_device(),
            t.is_signed(x), x.is_pinned(), len(t.broadcast_shapes()),
        ]  # fmt: skip

    same(facts)
    assert isinstance(tc.broadcast_shapes(), tc.Size)
    assert tc.broadcast_shapes((2, 1), 3) == (2, 3)
    assert tc.ones(2).pin_memory().share_memory_().tolist() == [1.0, 1.0]
    assert tc.normal(2.0, 0.0, (2,), layout=tc.strided).tolist() == [2.0, 2.0]
    with pytest.raises(RuntimeError, match="more than one value is ambiguous"):
        tc.ones(2).is_nonzero()


def test_typed_constructors():
    def made(t):
        return [
            t.FloatTensor([1, 2]), t.LongTensor([[3]]), t.DoubleTensor(X), t.BoolTensor([1, 0]),
            t.FloatTensor(2, 3).shape, t.IntTensor().shape,
            isinstance(t.tensor(1.0), t.FloatTensor), isinstance(t.tensor(1), t.FloatTensor),
        ]  # fmt: skip

    same(made)
    assert tc.LongTensor([1]).dtype is tc.int64
    with pytest.raises(TypeError, match="expects dtype int64, given float32"):
        tc.LongTensor(tc.ones(2))


def test_modes_remember_what_was_asked_for():
    tc.use_deterministic_algorithms(True, warn_only=True)
    assert tc.are_deterministic_algorithms_enabled()
    assert tc.get_deterministic_debug_mode() == 1
    tc.set_deterministic_debug_mode("default")
    assert not tc.are_deterministic_algorithms_enabled()
    tc.set_float32_matmul_precision("high")
    assert tc.get_float32_matmul_precision() == "high"
    tc.set_float32_matmul_precision("highest")
    with pytest.raises(RuntimeError, match="not one of"):
        tc.set_float32_matmul_precision("low")
    tc.set_default_tensor_type("torch.DoubleTensor")
    assert tc.ones(1).dtype is tc.float64
    tc.set_default_tensor_type(tc.FloatTensor)
    assert tc.ones(1).dtype is tc.float32
    tc.set_default_device("cpu")
    assert tc.get_default_device() == tc.device("cpu")
    with pytest.raises(RuntimeError, match="no CUDA backend"):
        tc.set_default_device("cuda")
    with tc.device("cpu"):
        assert tc.ones(2).device.type == "cpu"
    assert not tc.is_anomaly_enabled()


def network(t):
    """A network with PyTorch's numbers in it."""
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4))
    if t is torch:
        return theirs
    mine = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    mine.load_state_dict({k: tc.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    return mine


def test_pruning_step_by_step():
    def pruned(t):
        prune, net = t.nn.utils.prune, network(t)
        prune.l1_unstructured(net[0], "weight", amount=0.3)
        prune.ln_structured(net[0], "weight", amount=2, n=2, dim=0)
        prune.l1_unstructured(net[0], "bias", amount=2)
        prune.custom_from_mask(net[2], "bias", t.tensor([1, 0, 1, 0]))
        assert prune.is_pruned(net)
        y = net(t.tensor(X))
        y.square().sum().backward()
        found = [y, net[0].weight, net[0].weight_mask, net[0].weight_orig.grad]
        assert sorted(net.state_dict())[:2] == ["0.bias_mask", "0.bias_orig"]
        prune.remove(net[0], "weight")
        assert isinstance(net[0].weight, t.nn.Parameter)
        return [*found, net[0].weight, net(t.tensor(X))]

    same(pruned)


def test_pruning_of_several_parameters_as_one_and_at_random():
    def pruned(t):
        prune, net = t.nn.utils.prune, network(t)
        pairs = [(net[0], "weight"), (net[2], "weight")]
        prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=0.4)
        return [m.weight_mask for m, _ in pairs]

    same(pruned)
    prune, net = nn.utils.prune, network(tc)
    prune.random_unstructured(net[0], "weight", amount=7)
    assert (net[0].weight_mask == 0).sum() == 7
    prune.random_structured(net[2], "weight", amount=2, dim=1)
    assert (net[2].weight_mask.sum(0) == 0).sum() == 2
    with pytest.raises(ValueError, match="has to be pruned before"):
        prune.remove(nn.Linear(2, 2), "weight")
    with pytest.raises(ValueError, match=r"float in \[0, 1\]"):
        prune.l1_unstructured(nn.Linear(2, 2), "weight", amount=1.5)


def test_a_pruned_network_trains_compiled():
    def trained(wrap):
        net = network(tc)
        nn.utils.prune.l1_unstructured(net[0], "weight", amount=0.5)
        opt = tc.optim.SGD(net.parameters(), lr=0.1)

        @wrap
        def step(x):
            opt.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            opt.step()
            return loss

        losses = [step(tc.tensor(X)).item() for _ in range(3)]
        assert (net[0].weight == 0).sum() == 15
        return losses

    np.testing.assert_allclose(trained(tc.compile), trained(lambda f: f), 1e-5)


def test_parametrized_tensors_are_computed_once_inside_cached():
    def calls(t):
        seen = []

        class Double(t.nn.Module):
            def forward(self, x):
                seen.append(1)
                return 2 * x

        parametrize, layer = t.nn.utils.parametrize, t.nn.Linear(2, 2)
        parametrize.register_parametrization(layer, "weight", Double())
        seen.clear()
        with parametrize.cached():
            assert layer.weight is layer.weight
            layer(t.ones(1, 2))
        layer(t.ones(1, 2))
        assert parametrize.type_before_parametrizations(layer) is t.nn.Linear
        return [len(seen)]

    same(calls)


@pytest.mark.parametrize("transpose", [False, True])
def test_batch_norm_folds_into_the_layer_before(transpose):
    conv = (nn.ConvTranspose2d if transpose else nn.Conv2d)(3, 4, 3)
    bn = nn.BatchNorm2d(4)
    x = tc.randn(2, 3, 6, 6)
    bn(conv(x))
    with tc.no_grad():
        bn.weight.uniform_(0.5, 2.0)
        bn.bias.normal_()
    conv.eval(), bn.eval()
    fused = nn.utils.fuse_conv_bn_eval(conv, bn, transpose)
    np.testing.assert_allclose(fused(x).detach(), bn(conv(x)).detach(), 1e-4, 1e-5)
    linear, bn = nn.Linear(3, 4, bias=False).eval(), nn.BatchNorm1d(4).eval()
    fused = nn.utils.fuse_linear_bn_eval(linear, bn)
    x = tc.randn(5, 3)
    np.testing.assert_allclose(fused(x).detach(), bn(linear(x)).detach(), 1e-5, 1e-6)
    with pytest.raises(RuntimeError, match="only for evaluation"):
        nn.utils.fuse_conv_bn_eval(conv.train(), bn)


def test_modules_without_numbers_and_wrapped_ones():
    assert nn.utils.skip_init(nn.Linear, 2, 3).weight.abs().sum() == 0
    net = nn.DataParallel(network(tc))
    assert next(iter(net.state_dict())) == "module.0.weight"
    assert net(tc.tensor(X)).shape == (4, 4)


def test_hooks_around_optimizer_state():
    def calls(t):
        p, seen = t.nn.Parameter(t.ones(2)), []
        opt = t.optim.SGD([p], lr=0.1)
        opt.register_state_dict_pre_hook(lambda o: seen.append("saving"))
        opt.register_state_dict_post_hook(lambda o, d: {**d, "extra": 1})
        opt.register_load_state_dict_pre_hook(lambda o, d: seen.append(d["extra"]))
        opt.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
        opt.load_state_dict(opt.state_dict())
        return seen

    assert calls(tc) == calls(torch) == ["saving", 1, "loaded"]
    with pytest.raises(RuntimeError, match="use Adam"):
        tc.optim.SparseAdam([tc.ones(1)])


def test_datasets_side_by_side_and_in_shares():
    def rows(t):
        data = t.utils.data
        side = data.StackDataset(t.arange(5), t.arange(5) * 2)
        named = data.StackDataset(x=t.arange(3), y=[5, 6, 7])
        chained = data.ChainDataset([data.TensorDataset(t.arange(2)), [7]])
        share = data.DistributedSampler(range(7), num_replicas=3, rank=1, shuffle=False)
        return [side[3], len(side), named[2]["y"], len(list(chained.datasets)), list(share)]

    same(rows)
    sampler = tc.utils.data.DistributedSampler(range(10), num_replicas=2, rank=0)
    first = list(sampler)
    sampler.set_epoch(1)
    other = tc.utils.data.DistributedSampler(range(10), num_replicas=2, rank=1)
    assert first != list(sampler)
    assert sorted([*first, *other]) == list(range(10))
    assert tc.utils.data.default_convert({"a": [np.ones(2)]})["a"][0].tolist() == [1.0, 1.0]
    assert tc.utils.data.get_worker_info() is None
    with pytest.raises(ValueError, match="Size mismatch"):
        tc.utils.data.StackDataset([1], [1, 2])


def test_linearize_and_batch_norm_without_statistics():
    same(lambda t: [t.func.linearize(t.sin, t.tensor(X))[1](t.ones(4, 6))])
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    plain = copy.deepcopy(net)
    tc.func.replace_all_batch_norm_modules_(net)
    x = tc.randn(5, 2)
    np.testing.assert_allclose(net.eval()(x).detach(), plain(x).detach(), 1e-5, 1e-6)
    same(lambda t: [t.vmap(t.dot)(t.tensor(X), t.tensor(X))])
