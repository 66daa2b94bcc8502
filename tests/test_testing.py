"""`testing.assert_close` agrees with PyTorch's; programs that ask for a GPU go on without."""

from __future__ import annotations

import pytest

import tracecc as tc
from tracecc.testing import assert_close

NAN = float("nan")

# What is compared, with which options, and whether it passes.
COMPARED = {
    "equal": (lambda t: (t.ones(3), t.ones(3)), {}, True),
    "rounding": (lambda t: (t.ones(3), t.ones(3) + 1e-6), {}, True),
    "too far": (lambda t: (t.ones(3), t.ones(3) + 1e-4), {}, False),
    "float64 is stricter": (lambda t: (t.ones(3).double(), t.ones(3).double() + 1e-6), {}, False),
    "bfloat16 is looser": (lambda t: (t.ones(3).bfloat16(), t.ones(3).bfloat16() * 1.01), {}, True),
    "integers exactly": (lambda t: (t.arange(3), t.arange(3) + 1), {}, False),
    "bools": (lambda t: (t.arange(3) > 1, t.arange(3) > 1), {}, True),
    "complex": (lambda t: (t.tensor([1 + 1j]), t.tensor([1 + 1.1j])), {}, False),
    "tolerances": (lambda t: (t.ones(3), t.ones(3) + 1e-2), {"rtol": 0, "atol": 0.1}, True),
    "relative to expected": (lambda t: (t.zeros(1), t.ones(1)), {"rtol": 1, "atol": 0}, True),
    "shapes": (lambda t: (t.ones(3), t.ones(1, 3)), {}, False),
    "dtypes": (lambda t: (t.ones(3), t.ones(3).double()), {}, False),
    "dtypes ignored": (lambda t: (t.ones(3), t.ones(3).double()), {"check_dtype": False}, True),
    "strides": (lambda t: (t.ones(2, 2), t.ones(2, 2).t()), {"check_stride": True}, False),
    "nan": (lambda t: (t.tensor([NAN]), t.tensor([NAN])), {}, False),
    "nan equal": (lambda t: (t.tensor([NAN]), t.tensor([NAN])), {"equal_nan": True}, True),
    "infinity": (lambda t: (t.tensor([float("inf")]), t.tensor([float("inf")])), {}, True),
    "empty": (lambda t: (t.zeros(0), t.zeros(0)), {}, True),
    "numbers": (lambda t: (1.0, 1.0 + 1e-9), {}, True),
    "lists": (lambda t: ([t.ones(2), 1], [t.ones(2), 2]), {}, False),
    "lengths": (lambda t: ([t.ones(2)], [t.ones(2)] * 2), {}, False),
    "keys": (lambda t: ({"a": 1}, {"b": 1}), {}, False),
    "dicts": (lambda t: ({"a": t.ones(2)}, {"a": t.ones(2)}), {}, True),
}


def passes(torch, name):
    made, options, _ = COMPARED[name]
    try:
        torch.testing.assert_close(*made(torch), **options)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("name", COMPARED)
def test_what_is_close(name):
    assert passes(tc, name) is COMPARED[name][2]


def test_pytorch_finds_the_same_close():
    torch = pytest.importorskip("torch")
    assert [n for n in COMPARED if passes(torch, n) is not COMPARED[n][2]] == []


def test_the_message_names_the_place_and_the_greatest_difference():
    with pytest.raises(AssertionError) as caught:
        assert_close(
            {"w": [tc.ones(2, 2), tc.zeros(2)]}, {"w": [tc.ones(2, 2), tc.tensor([0, 0.5])]}
        )
    assert str(caught.value) == (
        "Tensor-likes are not close: 1 of 2 elements differ; greatest absolute difference 0.5 at "
        "index (1,) (rtol=1.3e-06, atol=1e-05) at ['w'][1]"
    )
    with pytest.raises(AssertionError, match=r"^mine$"):
        assert_close(tc.ones(1), tc.zeros(1), msg="mine")
    with pytest.raises(ValueError, match=r"given 0\.1 and None"):
        assert_close(1.0, 1.0, rtol=0.1)


def test_programs_that_ask_for_a_gpu_go_on_without():
    assert not tc.cuda.is_available()
    assert not tc.backends.mps.is_available()
    assert tc.cuda.device_count() == 0
    tc.cuda.manual_seed_all(0)
    tc.cuda.empty_cache()
    tc.backends.cudnn.benchmark = True
    x = tc.ones(2, device="cuda" if tc.cuda.is_available() else "cpu")
    assert x.device == tc.device("cpu")
    for ask in (tc.cuda.synchronize, tc.cuda.current_device, tc.cuda.get_device_name):
        with pytest.raises(RuntimeError, match="no CUDA backend on this machine"):
            ask()
