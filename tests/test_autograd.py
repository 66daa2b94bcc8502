"""The tape: gradients, higher derivatives, hooks, errors and in-place semantics equal PyTorch's."""

import numpy as np
import pytest

import tracecc as tc

torch = pytest.importorskip("torch")


def leaf(lib, values, dtype="float64"):
    return lib.tensor(values, dtype=getattr(lib, dtype), requires_grad=True)


def same(a, b):
    np.testing.assert_allclose(np.asarray(a.detach()), b.detach().numpy(), rtol=1e-9, atol=1e-12)


def both(program):
    """Runs one program with either library and compares every tensor that it returns."""
    ours, theirs = program(tc), program(torch)
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        if b is None or isinstance(b, (bool, int, float, str)):
            assert a == b
        else:
            same(a, b)


def test_gradients_of_a_small_network():
    def program(lib):
        w, b = leaf(lib, [[0.1, -0.2], [0.3, 0.4]]), leaf(lib, [0.5, -0.5])
        x = lib.tensor([[1.0, 2.0], [3.0, -4.0], [0.0, 1.0]], dtype=lib.float64)
        y = lib.tanh(x @ w + b).pow(2).mean()
        y.backward()
        return y, w.grad, b.grad

    both(program)


def test_third_derivative_with_create_graph():
    def program(lib):
        x = leaf(lib, [0.3, -1.2])
        y = (x.sin() * x**3).sum()
        (g1,) = lib.autograd.grad(y, x, create_graph=True)
        (g2,) = lib.autograd.grad(g1.sum(), x, create_graph=True)
        (g3,) = lib.autograd.grad(g2.sum(), x)
        return g1, g2, g3

    both(program)


def test_gradients_accumulate_and_do_not_alias():
    def program(lib):
        x = leaf(lib, [1.0, 2.0])
        (x * 3).sum().backward()
        first = x.grad
        (x * x).sum().backward()
        return x.grad, first

    both(program)
    x, y = tc.ones(2, requires_grad=True), tc.ones(2, requires_grad=True)
    (x + y).sum().backward()
    x.grad.zero_()
    assert y.grad.tolist() == [1.0, 1.0]


def test_hooks_run_in_order_and_replace_gradients():
    def program(lib):
        x = leaf(lib, [1.0, 2.0])
        h = x * 2
        seen = []
        h.register_hook(lambda g: seen.append(float(g.sum())))
        h.register_hook(lambda g: g * 10)
        removed = x.register_hook(lambda g: g * 1000)
        removed.remove()
        x.register_hook(lambda g: g + 1)
        h.retain_grad()
        (h * h).sum().backward()
        return x.grad, h.grad, seen[0]

    both(program)


def test_post_accumulate_hook_sees_the_grad():
    x = tc.ones(2, requires_grad=True)
    seen = []
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.tolist()))
    (x * 3).sum().backward()
    assert seen == [[3.0, 3.0]]


def test_unused_inputs_and_allow_unused():
    x, y = tc.ones(2, requires_grad=True), tc.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="appears to not have been used in the graph"):
        tc.autograd.grad((x * 2).sum(), (x, y))
    g = tc.autograd.grad((x * 2).sum(), (x, y), allow_unused=True)
    assert g[1] is None


def test_gradient_with_respect_to_an_intermediate():
    def program(lib):
        x = leaf(lib, [1.0, 2.0])
        h = x * x
        y = (h * 3).sum()
        return lib.autograd.grad(y, (h, x))

    both(program)


def test_second_backward_is_refused_unless_retained():
    x = tc.ones(2, requires_grad=True)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.backward()
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [6.0, 6.0]


def test_backward_errors():
    x = tc.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="implicitly created only for scalar outputs"):
        (x * 2).backward()
    with pytest.raises(RuntimeError, match="does not require grad"):
        tc.ones(()).backward()
    with pytest.raises(RuntimeError, match="Mismatch in shape"):
        (x * 2).backward(tc.ones(3))
    with pytest.raises(RuntimeError, match="only floating point"):
        tc.tensor([1], requires_grad=True)


def test_leaves_refuse_in_place_writes_outside_of_no_grad():
    x = tc.ones(2, requires_grad=True)
    for write in (lambda: x.add_(1), lambda: x.zero_(), lambda: x.__setitem__(0, 3.0)):
        with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
            write()
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        x[0].mul_(2)
    with tc.no_grad():
        x.mul_(2)
    assert x.tolist() == [2.0, 2.0]
    assert x.is_leaf
    assert x.requires_grad


def test_overwritten_saved_value_is_refused():
    x = tc.ones(3, requires_grad=True)
    h = x * 2
    y = (h * h).sum()
    h.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_overwriting_what_no_derivative_needs_is_allowed():
    def program(lib):
        x = leaf(lib, [1.0, 2.0])
        h = x + 1
        y = h + 2
        h.mul_(5)
        y.sum().backward()
        return x.grad, h

    both(program)


def test_in_place_operations_are_differentiated():
    def program(lib):
        x = leaf(lib, [0.5, 1.5, -2.0])
        h = x * 1
        h.mul_(3)
        h.sin_()
        h += x
        h[0] = 7.0
        h.sum().backward()
        return h, x.grad

    both(program)


def test_in_place_on_a_view_reaches_the_base_and_back():
    def program(lib):
        x = leaf(lib, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        base = x * 1
        row = base[1]
        row.mul_(10)
        column = base.t()[0]
        (base.sum() + column.sum() + (row * row).sum()).backward()
        return base, row, column, x.grad

    both(program)


def test_write_to_the_base_is_seen_by_views_made_before():
    def program(lib):
        x = leaf(lib, [1.0, 2.0, 3.0, 4.0])
        base = x * 1
        v = base[1:3]
        base.mul_(3)
        (v * v).sum().backward()
        return v, x.grad

    both(program)


def test_grad_enters_a_plain_tensor_by_a_slice():
    def program(lib):
        x = leaf(lib, [1.0, 2.0])
        buffer = lib.zeros(2, 2, dtype=lib.float64)
        buffer[1] = x * 3
        buffer[0] = x.flip(0)
        (buffer * buffer).sum().backward()
        return buffer, x.grad

    both(program)


def test_zeroing_keeps_the_history():
    def program(lib):
        x = leaf(lib, [1.0, 2.0])
        h = x * 2
        h.zero_()
        (h.sum() + x.sum()).backward()
        return h, x.grad, h.requires_grad

    both(program)


def test_detach_shares_memory_and_refuses_resizing():
    x = tc.ones(3, requires_grad=True)
    d = x.detach()
    assert not d.requires_grad
    assert d.is_leaf
    d[0] = 9.0
    assert x.tolist() == [9.0, 1.0, 1.0]
    with pytest.raises(RuntimeError, match="can't be resized"):
        d.resize_(7)


def test_detach_is_versioned_with_its_origin():
    x = tc.ones(3, requires_grad=True)
    h = x * 2
    y = (h * h).sum()
    h.detach().add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_grad_modes():
    x = tc.ones(2, requires_grad=True)
    with tc.no_grad():
        assert not (x * 2).requires_grad
        with tc.enable_grad():
            assert (x * 2).requires_grad
    assert (x * 2).requires_grad

    @tc.no_grad()
    def f(v):
        return v * 2

    assert not f(x).requires_grad
    with tc.inference_mode():
        assert not (x * 2).requires_grad
        assert tc.is_inference_mode_enabled()
    tc.set_grad_enabled(False)
    assert not tc.is_grad_enabled()
    tc.set_grad_enabled(True)
    assert tc.is_grad_enabled()


def test_custom_function_with_saved_tensors_and_double_backward():
    def program(lib):
        class Cube(lib.autograd.Function):
            @staticmethod
            def forward(ctx, x, scale):
                ctx.save_for_backward(x)
                ctx.scale = scale
                return x * x * x * scale

            @staticmethod
            def backward(ctx, g):
                (x,) = ctx.saved_tensors
                return g * 3 * x * x * ctx.scale, None

        x = leaf(lib, [2.0, -1.0])
        y = Cube.apply(x, 2.0).sum()
        (g,) = lib.autograd.grad(y, x, create_graph=True)
        (h,) = lib.autograd.grad(g.sum(), x)
        return y, g, h

    both(program)


def test_custom_function_with_two_outputs_and_none():
    def program(lib):
        class Pair(lib.autograd.Function):
            @staticmethod
            def forward(ctx, a, b):
                ctx.save_for_backward(a, b)
                return a * b, a + b

            @staticmethod
            def backward(ctx, g, h):
                a, b = ctx.saved_tensors
                return g * b + h, g * a + h

        a, b = leaf(lib, [2.0]), leaf(lib, [5.0])
        p, q = Pair.apply(a, b)
        p.sum().backward()
        return a.grad, b.grad, q

    both(program)


def test_function_returning_too_few_gradients_is_refused():
    class Bad(tc.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            return a * b

        @staticmethod
        def backward(ctx, g):
            return g

    a, b = tc.ones(1, requires_grad=True), tc.ones(1, requires_grad=True)
    with pytest.raises(RuntimeError, match="incorrect number of gradients"):
        Bad.apply(a, b).sum().backward()


def test_backward_into_chosen_inputs_only():
    x, y = tc.ones(2, requires_grad=True), tc.ones(2, requires_grad=True)
    (x * y).sum().backward(inputs=[x])
    assert x.grad.tolist() == [1.0, 1.0]
    assert y.grad is None


def test_grad_of_assigned_shape_is_checked():
    x = tc.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="expected the tensor's own"):
        x.grad = tc.ones(3)
    with pytest.raises(TypeError, match="grad must be a Tensor"):
        x.grad = 3
    x.grad = tc.ones(2)
    assert x.grad.tolist() == [1.0, 1.0]


def test_grad_fn_names_and_leaves():
    x = tc.ones(2, requires_grad=True)
    y = x * 2
    assert x.is_leaf
    assert x.grad_fn is None
    assert not y.is_leaf
    assert repr(y.grad_fn) == "<MulBackward0>"
    with pytest.raises(RuntimeError, match="leaf"):
        y.requires_grad = False
    assert y.detach().requires_grad is False


def test_graph_that_shares_a_value_many_times_is_linear():
    x = tc.ones((), requires_grad=True)
    y = x
    for _ in range(200):
        y = y + y
        y = y * 0.5
    y.backward()
    assert x.grad.item() == 1.0


def test_deep_chain_needs_no_recursion():
    x = tc.ones((), requires_grad=True)
    y = x
    for _ in range(5000):
        y = y + 1
    y.backward()
    assert x.grad.item() == 1.0
