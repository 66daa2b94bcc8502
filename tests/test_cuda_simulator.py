"""The lock-step simulator finds every hazard that it promises to find, and no others."""

import numpy as np
import pytest

from tracecc.backends.cuda.simulator import SimulationError, simulate

GRID = "    i = uint32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)\n"

# Correct kernels whose every barrier is needed.
REVERSE = """
def reverse(x, y):
    t = cuda.threadIdx.x
    s = cuda.shared.array(64, float32)
    s[t] = x[t]
    cuda.syncthreads()
    y[t] = s[63 - t]
"""

TREE_SUM = """
def tree_sum(x, y):
    t = cuda.threadIdx.x
    s = cuda.shared.array(64, float32)
    s[t] = x[cuda.blockIdx.x * 64 + t]
    cuda.syncthreads()
    if t < 32:
        s[t] = s[t] + s[t + 32]
    cuda.syncthreads()
    if t < 16:
        s[t] = s[t] + s[t + 16]
    cuda.syncthreads()
    if t < 8:
        s[t] = s[t] + s[t + 8]
    cuda.syncthreads()
    if t < 4:
        s[t] = s[t] + s[t + 4]
    cuda.syncthreads()
    if t < 2:
        s[t] = s[t] + s[t + 2]
    cuda.syncthreads()
    if t < 1:
        y[cuda.blockIdx.x] = s[0] + s[1]
"""

BLOCK_SUM = """
def normalise(x, y):
    t = cuda.threadIdx.x
    s = cuda.shared.array(2, float32)
    d = x[cuda.blockIdx.x * 64 + t]
    power = d
    for moment in range(2):
        for distance in (16, 8, 4, 2, 1):
            power = power + cuda.shfl_xor_sync(0xffffffff, power, distance)
        cuda.syncthreads()
        if cuda.laneid == 0:
            s[t // 32] = power
        cuda.syncthreads()
        average = (s[0] + s[1]) * float32(1 / 64)
        if moment == 0:
            d = d - average
            power = d * d
    y[cuda.blockIdx.x * 64 + t] = d * libdevice.rsqrtf(average)
"""

TILES = """
def multiply(a, b, c):
    tx = cuda.threadIdx.x
    ty = cuda.threadIdx.y
    sa = cuda.shared.array(64, float32)
    sb = cuda.shared.array(64, float32)
    total = float32(0)
    for k in range(3):
        sa[ty * 8 + tx] = a[ty * 24 + k * 8 + tx]
        sb[ty * 8 + tx] = b[(k * 8 + ty) * 8 + tx]
        cuda.syncthreads()
        for q in range(8):
            total = total + sa[ty * 8 + q] * sb[q * 8 + tx]
        cuda.syncthreads()
    c[ty * 8 + tx] = total
"""

WARP_EXCHANGE = """
def exchange(x, y):
    t = cuda.threadIdx.x
    s = cuda.shared.array(64, float32)
    for k in range(2):
        s[t] = x[t] * float32(k + 1)
        cuda.syncwarp()
        y[k * 64 + t] = s[t ^ 7]
        cuda.syncwarp()
"""


def rng():
    return np.random.default_rng(5)


def _normalised(x):
    x = x.reshape(2, 64)
    d = x - x.mean(1, keepdims=True)
    return (d / np.sqrt((d * d).mean(1, keepdims=True))).ravel()


def _case(name, text, grid, block, inputs, size, expected):
    return pytest.param(name, text, grid, block, inputs, size, expected, id=name)


X = rng().standard_normal(128).astype(np.float32)
A, B = (rng().standard_normal(192).astype(np.float32) for _ in range(2))
PAIRS = X[:64].reshape(-1, 8)[:, ::-1].ravel()
KERNELS = [
    _case("reverse", REVERSE, (1,), (64,), [X[:64]], 64, X[:64][::-1]),
    _case("tree_sum", TREE_SUM, (2,), (64,), [X], 2, X.reshape(2, 64).sum(1)),
    _case("normalise", BLOCK_SUM, (2,), (64,), [X], 128, _normalised(X)),
    _case(
        "multiply", TILES, (1,), (8, 8), [A, B], 64, (A.reshape(8, 24) @ B.reshape(24, 8)).ravel()
    ),
    _case(
        "exchange", WARP_EXCHANGE, (1,), (64,), [X[:64]], 128, np.concatenate([PAIRS, 2 * PAIRS])
    ),
]


@pytest.mark.parametrize(("name", "text", "grid", "block", "inputs", "size", "expected"), KERNELS)
def test_a_correct_kernel_computes_what_numpy_does(name, text, grid, block, inputs, size, expected):
    out = np.zeros(size, np.float32)
    report = simulate(text, name, grid, block, [*inputs, out], undefined=(len(inputs),))
    np.testing.assert_allclose(out, expected, rtol=2e-6, atol=2e-6)
    assert report.unwritten == [0] * len(inputs) + [0]
    assert report.writes[-1] == size


@pytest.mark.parametrize(("name", "text", "grid", "block", "inputs", "size", "expected"), KERNELS)
def test_every_deleted_barrier_is_caught(name, text, grid, block, inputs, size, expected):
    lines = text.splitlines()
    barriers = [i for i, line in enumerate(lines) if "sync" in line and "shfl" not in line]
    assert barriers
    for i in barriers:
        mutant = "\n".join(lines[:i] + lines[i + 1 :])
        out = np.zeros(size, np.float32)
        with pytest.raises(SimulationError, match=r"race|before anything"):
            simulate(mutant, name, grid, block, [*inputs, out], undefined=(len(inputs),))


def fails(body, match, block=32, arguments=None, header="def k(x):\n"):
    arguments = [np.zeros(64, np.float32)] if arguments is None else arguments
    with pytest.raises(SimulationError, match=match):
        simulate(header + GRID + body, "k", (1,), (block,), arguments)


def test_a_barrier_that_only_some_threads_reach_is_divergent():
    fails("    if i < 3:\n        cuda.syncthreads()\n", "divergent barrier: .*has returned")


def test_two_different_barriers_do_not_meet():
    fails(
        "    if i < 3:\n        cuda.syncthreads()\n    else:\n        cuda.syncthreads()\n",
        "divergent barrier: thread .* at line 4",
    )


def test_a_shuffle_that_only_some_lanes_reach_is_divergent():
    fails(
        "    if i < 9:\n        cuda.shfl_xor_sync(0xffffffff, float32(i), 1)\n", "divergent warp"
    )


def test_a_full_mask_in_a_half_filled_warp_is_refused():
    fails("    cuda.shfl_down_sync(0xffffffff, float32(i), 1)\n", "divergent warp", block=16)


def test_a_shuffle_from_a_lane_outside_the_mask_is_refused():
    body = "    if i < 4:\n        cuda.shfl_xor_sync(0xf, float32(i), 8)\n"
    fails(body, "from lane 8, which does not give")


def test_lanes_of_a_partial_mask_may_shuffle_alone():
    body = "    if i < 4:\n        x[i] = cuda.shfl_xor_sync(0xf, float32(i), 3)\n"
    x = np.zeros(4, np.float32)
    simulate("def k(x):\n" + GRID + body, "k", (1,), (32,), [x])
    assert x.tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("shfl_up_sync(0xffffffff, v, 2)", [0, 1, 0, 1, 2, 3]),
        ("shfl_down_sync(0xffffffff, v, 30)", [30, 31, 2, 3, 4, 5]),
        ("shfl_sync(0xffffffff, v, 5)", [5] * 6),
    ],
)
def test_shuffles_past_the_warp_return_the_own_value(call, expected):
    x = np.zeros(32, np.int64)
    text = f"def k(x):\n{GRID}    v = int64(i)\n    x[i] = cuda.{call}\n"
    simulate(text, "k", (1,), (32,), [x])
    assert x[:6].tolist() == expected


def test_two_threads_writing_one_global_element_race_even_in_different_blocks():
    text = "def k(x):\n    x[0] = float32(1)\n"
    for grid, block in (((1,), (2,)), ((2,), (1,))):
        with pytest.raises(SimulationError, match="race on argument 0"):
            simulate(text, "k", grid, block, [np.zeros(1, np.float32)])


def test_memory_passed_twice_is_known_to_be_the_same():
    x = X[:64].copy()
    text = f"def k(x, y):\n{GRID}    y[i] = x[i] * float32(2)\n"
    simulate(text, "k", (2,), (32,), [x, x], undefined=(1,))
    np.testing.assert_array_equal(x, 2 * X[:64])
    with pytest.raises(SimulationError, match="race on argument"):
        simulate(text.replace("x[i]", "x[i ^ 32]"), "k", (2,), (32,), [x, x], undefined=(1,))


def test_a_barrier_does_not_order_two_blocks():
    text = f"def k(x):\n{GRID}    x[i] = float32(i)\n    cuda.syncthreads()\n    x[i] = x[i ^ 2]\n"
    with pytest.raises(SimulationError, match="race on argument 0"):
        simulate(text, "k", (2,), (2,), [np.zeros(4, np.float32)])


def test_a_warp_barrier_does_not_order_two_warps():
    text = WARP_EXCHANGE.replace("s[t ^ 7]", "s[t ^ 32]")
    with pytest.raises(SimulationError, match="race on shared"):
        simulate(text, "exchange", (1,), (64,), [X[:64], np.zeros(128, np.float32)])


@pytest.mark.parametrize("index", ["i + 40", "int32(i) - 3"])
def test_indices_out_of_bounds_are_refused(index):
    fails(f"    x[{index}] = float32(0)\n", "out of bounds: it has 64 elements")


def test_an_index_must_be_an_integer():
    fails("    x[float32(i)] = float32(0)\n", "indexed by float32")


def test_reading_unwritten_shared_local_and_output_memory_is_refused():
    fails(
        "    s = cuda.shared.array(32, float32)\n    x[i] = s[i]\n",
        "shared array of line 3.*before",
    )
    fails(
        "    s = cuda.local.array(4, float32)\n    x[i] = s[1]\n", "local array of line 3.*before"
    )
    text = f"def k(x):\n{GRID}    x[i] = x[i] + float32(1)\n"
    with pytest.raises(SimulationError, match=r"argument 0\[0\] is read before"):
        simulate(text, "k", (1,), (4,), [np.zeros(4, np.float32)], undefined=(0,))


def test_values_of_another_type_are_not_stored_silently():
    fails("    x[i] = float64(1)\n", "holds float32, given float64")
    fails("    x[i] = 1\n", "holds float32, given int")


def test_device_functions_take_only_their_own_type():
    fails("    x[i] = libdevice.expf(1.0)\n", "expf takes float32, given float")
    fails("    x[i] = libdevice.exp(x[i])\n", "exp takes float64, given float32")


def test_the_error_names_the_line_and_the_thread():
    fails(
        "    x[i + 62] = float32(0)\n", r"k line 3 `x\[i \+ 62\] = float32\(0\)`, block 0, thread 2"
    )


def test_local_arrays_belong_to_one_thread():
    body = "    a = cuda.local.array(2, float32)\n    a[0] = float32(i)\n    x[i] = a[0]\n"
    x = np.zeros(32, np.float32)
    simulate("def k(x):\n" + GRID + body, "k", (1,), (32,), [x])
    assert x.tolist() == list(range(32))


def test_counts_tell_the_memory_traffic():
    text = f"def k(x, y):\n{GRID}    v = x[i]\n    y[i] = v * v\n    cuda.syncthreads()\n"
    report = simulate(text, "k", (2,), (4,), [X[:8], np.zeros(9, np.float32)], undefined=(1,))
    assert (report.reads, report.writes, report.unwritten) == ([8, 0], [0, 8], [0, 1])
    assert report.barriers == 2


@pytest.mark.parametrize("bits", [0x3F80, 0x0001, 0xFF80, 0x7F7F, 0x8000])
def test_bfloat16_travels_as_bits(bits):
    x = np.array([bits], np.uint16)
    shifted = "int32(uint32(uint32(x[0]) << uint32(16)))"
    text = f"def k(x, y):\n    y[0] = libdevice.int_as_float({shifted})\n"
    y = np.zeros(1, np.float32)
    simulate(text, "k", (1,), (1,), [x, y])
    assert y.view(np.uint32)[0] == bits << 16
