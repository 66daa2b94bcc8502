"""Attention forward and backward as kernel source around the register tiles.

Forward: a unit is a block of queries of one head. Backward: a unit is a head, whose key and value
gradients grow in the worker's scratch while blocks of queries pass. In both only a tile of scores
exists at a time. Rows are copied to and from contiguous blocks, so operands may have any strides.
"""

# A block of `width` rows of `size` features -> `rows` [width, pad], zeros beyond.
COPY = """
for i in range(count):
    at = base + (q0 + i) * step
    for j in range(size):
        {rows}[i * pad + j] = {source}[at + j]
    for j in range(size, pad):
        {rows}[i * pad + j] = f32(0)
for i in range(count, {width}):
    for j in range(pad):
        {rows}[i * pad + j] = f32(0)
"""

# Rows `gap` bytes apart -> `turned` [size, width].
TURN = """
for i in range(0, {width}, {lanes}):
    for j in range(0, size, {lanes}):
        to = {turned} + (j * {width} + i) * 4
        call_epilogue(turn, to, {start} + i * gap + j * 4, 0, {row}, gap, 0, 0)
"""

# `turned` [size, width] -> rows `gap` bytes apart.
BACK = """
for i in range(0, {width}, {lanes}):
    for j in range(0, size, {lanes}):
        at = {turned} + (j * {width} + i) * 4
        call_epilogue(turn, {start} + i * gap + j * 4, at, 0, gap, {row}, 0, 0)
"""

# The scores of keys [k0, k0 + keys): `to` [keys, width] = `left` rows times `turned`.
SCORES = """
high = i64_arg(args, {tiles})
height = {rows_of_tile}
if keys < {rows_of_tile}:
    height = 4 if keys >= 4 else 1
    high = i64_arg(args, {tiles} + 1) if keys >= 4 else i64_arg(args, {tiles} + 2)
for i in range(0, keys, height):
    # The last tile overlaps the one before. Keys past the first half of the queries skip it.
    i0 = minimum(i, keys - height)
    skip = {lanes} * 4 if causal and k0 + i0 >= q0 + {lanes} and keys >= {rows_of_tile} else 0
    left = {left} + (k0 + i0) * {step} * 4
    to = {to} + i0 * {row} + skip
    called = i64_arg(args, {narrow}) if skip else high
    call_epilogue(called, {size}, left, {turned} + skip, to, {step} * 4, {row}, 0)
"""

# `to` [size, width] (+)= `left` [keys, size]^T times the weights `right` [keys, width].
GATHERED = """
height = i64_arg(args, {tiles} + 2)
early = minimum(keys, q0 + {lanes} - k0) if causal else keys
for i in range(0, {size}, height):
    high = i64_arg(args, {tiles}) if i + height <= {size} else i64_arg(args, {tiles} + 1)
    left = {left} + (k0 * {step} + i) * 4
    to = {to} + i * {row}
    call_epilogue(high, early, left, {right}, to, {step} * 4, {row}, k0)
    if early < keys:
        high = i64_arg(args, {tiles} + 3 if i + height <= {size} else {tiles} + 4)
        left += early * {step} * 4
        right = {right} + early * {row} + {lanes} * 4
        to += {lanes} * 4
        call_epilogue(high, keys - early, left, right, to, {step} * 4, {row}, 1)
"""

FORWARD = """
def attention(args, begin, end, scratch):
    q = f32_ptr(args, 0)
    k = i64_arg(args, 1)
    v = i64_arg(args, 2)
    o = f32_ptr(args, 3)
    lse = f32_ptr(args, 4)
    queries = i64_arg(args, 5)
    all_keys = i64_arg(args, 6)
    d = i64_arg(args, 7)
    e = i64_arg(args, 8)
    heads = i64_arg(args, 9)
    causal = i64_arg(args, 22)
    scale = f32_arg(args, 23)
    turn = i64_arg(args, 25)
    softmax = i64_arg(args, 26)
    shrink = i64_arg(args, 35)
    fetch = i64_arg(args, 36)
    blocks = (queries + {width} - 1) // {width}
    widest = maximum(d, e)
    pad = (widest + {lanes} - 1) // {lanes} * {lanes}
    rows = f32_at(scratch)
    turned = scratch + pad * {row}
    result = turned + pad * {row}
    scores = turned + 2 * pad * {row}
    state = f32_at(scores + {block} * {row})
    factors = address(state) + 2 * {row}
    state[3 * {width}] = f32_arg(args, 24)
    k_step = i64_arg(args, 15)
    v_step = i64_arg(args, 18)
    for u in range(begin, end):
        z = u // blocks
        q0 = u % blocks * {width}
        outer = z // heads
        inner = z % heads
        count = minimum(queries - q0, {width})
        base = outer * i64_arg(args, 10) + inner * i64_arg(args, 11)
        step = i64_arg(args, 12)
        size = d
        gap = step * 4
        start = i64_arg(args, 0) + (base + q0 * step) * 4
        if count < {width} or size % {lanes} != 0:
            start = scratch
            gap = pad * 4
{copy_q_part}
{turn_q_part}
        # What the next unit reads and this one writes is on its way while this one computes.
        more = minimum(queries - q0 - count, {width})
        at = i64_arg(args, 0) + (base + (q0 + count) * step) * 4
        call_epilogue(fetch, at, more, d * 4, step * 4, 0, 0, 0)
        k_at = k + (outer * i64_arg(args, 13) + inner * i64_arg(args, 14)) * 4
        v_at = v + (outer * i64_arg(args, 16) + inner * i64_arg(args, 17)) * 4
        base = outer * i64_arg(args, 19) + inner * i64_arg(args, 20)
        step = i64_arg(args, 21)
        at = i64_arg(args, 3) + (base + q0 * step) * 4
        call_epilogue(fetch, at, count, e * 4, step * 4, 0, 0, 0)
        for j in range({width}):
            state[j] = f32(-1e999)
            state[{width} + j] = f32(0)
        last = minimum(all_keys, q0 + count) if causal else all_keys
        more = minimum(all_keys - last, {width})
        call_epilogue(fetch, k_at + last * k_step * 4, more, d * 4, k_step * 4, 0, 0, 0)
        call_epilogue(fetch, v_at + last * v_step * 4, more, e * 4, v_step * 4, 0, 0, 0)
        for k0 in range(0, last, {block}):
            keys = minimum(last - k0, {block})
{scores_part}
            full = minimum(maximum(q0 - k0 + 1, 0), keys) if causal else keys
            call_epilogue(softmax, scores, keys, full, q0 - k0, address(state), 0, 0)
            if k0 > 0:
                call_epilogue(shrink, result, e, factors, 0, 0, 0, 0)
{values_part}
        base = outer * i64_arg(args, 19) + inner * i64_arg(args, 20)
        step = i64_arg(args, 21)
        for j in range({width}):
            state[2 * {width} + j] = f32(1) / state[{width} + j]
        call_epilogue(shrink, result, e, factors, 0, 0, 0, 0)
        size = e
        gap = step * 4
        start = i64_arg(args, 3) + (base + q0 * step) * 4
        apart = count < {width} or size % {lanes} != 0
        if apart:
            start = scratch
            gap = pad * 4
{back_part}
        if apart:
            for i in range(count):
                at = base + (q0 + i) * step
                for j in range(e):
                    o[at + j] = rows[i * pad + j]
        at = z * queries + q0
        for j in range(count):
            lse[at + j] = add(mul(state[j], scale), log(state[{width} + j]))
"""

BACKWARD = """
def attention_grad(args, begin, end, scratch):
    g = f32_ptr(args, 0)
    q = f32_ptr(args, 1)
    k = i64_arg(args, 2)
    v = i64_arg(args, 3)
    lse = f32_ptr(args, 4)
    dot = f32_ptr(args, 5)
    dq = f32_ptr(args, 6)
    dk = f32_ptr(args, 7)
    dv = f32_ptr(args, 8)
    queries = i64_arg(args, 9)
    all_keys = i64_arg(args, 10)
    d = i64_arg(args, 11)
    e = i64_arg(args, 12)
    heads = i64_arg(args, 13)
    causal = i64_arg(args, 35)
    scale = f32_arg(args, 36)
    turn = i64_arg(args, 38)
    weights = i64_arg(args, 39)
    shrink = i64_arg(args, 50)
    fetch = i64_arg(args, 51)
    widest = maximum(d, e)
    pad = (widest + {lanes} - 1) // {lanes} * {lanes}
    panel = pad * {row}
    q_rows = f32_at(scratch)
    q_turned = scratch + panel
    g_rows = f32_at(scratch + 2 * panel)
    g_turned = scratch + 3 * panel
    grown = scratch + 4 * panel
    scores = scratch + 5 * panel
    slopes = scores + {tall} * {row}
    state = f32_at(slopes + {tall} * {row})
    k_sum = f32_at(slopes + {tall} * {row} + 4 * {row})
    reach = all_keys + {rows_of_tile}
    v_sum = offset(k_sum, reach * pad)
    score_rows = f32_at(scores)
    slope_rows = f32_at(slopes)
    state[2 * {width}] = f32_arg(args, 37)
    factors = address(state) + 3 * {row}
    for j in range({width}):
        state[3 * {width} + j] = scale
    k_step = i64_arg(args, 22)
    v_step = i64_arg(args, 25)
    for z in range(begin, end):
        outer = z // heads
        inner = z % heads
        k_at = k + (outer * i64_arg(args, 20) + inner * i64_arg(args, 21)) * 4
        v_at = v + (outer * i64_arg(args, 23) + inner * i64_arg(args, 24)) * 4
        for j in range(2 * reach * pad):
            k_sum[j] = f32(0)
        for q0 in range(0, queries, {width}):
            count = minimum(queries - q0, {width})
            base = outer * i64_arg(args, 14) + inner * i64_arg(args, 15)
            step = i64_arg(args, 16)
            size = e
            gap = pad * 4
{copy_g_part}
{turn_g_part}
            more = minimum(queries - q0 - count, {width})
            at = i64_arg(args, 0) + (base + (q0 + count) * step) * 4
            call_epilogue(fetch, at, more, e * 4, step * 4, 0, 0, 0)
            base = outer * i64_arg(args, 17) + inner * i64_arg(args, 18)
            step = i64_arg(args, 19)
            size = d
{copy_q_part}
{turn_q_part}
            at = i64_arg(args, 1) + (base + (q0 + count) * step) * 4
            call_epilogue(fetch, at, more, d * 4, step * 4, 0, 0, 0)
            at = z * queries + q0
            for j in range(count):
                state[j] = mul(lse[at + j], f32({log2e}))
                state[{width} + j] = dot[at + j]
            for j in range(count, {width}):
                state[j] = f32(1e999)
                state[{width} + j] = f32(0)
            last = minimum(all_keys, q0 + count) if causal else all_keys
            more = minimum(all_keys - last, {width})
            call_epilogue(fetch, k_at + last * k_step * 4, more, d * 4, k_step * 4, 0, 0, 0)
            call_epilogue(fetch, v_at + last * v_step * 4, more, e * 4, v_step * 4, 0, 0, 0)
            for k0 in range(0, last, {block}):
                keys = minimum(last - k0, {block})
{scores_part}
{slopes_part}
                full = minimum(maximum(q0 - k0 + 1, 0), keys) if causal else keys
                call_epilogue(weights, scores, slopes, keys, full, q0 - k0, address(state), 0)
{grown_part}
                even = (keys + {rows_of_tile} - 1) // {rows_of_tile} * {rows_of_tile}
                for j in range(keys * {width}, even * {width}):
                    score_rows[j] = f32(0)
                    slope_rows[j] = f32(0)
                for i in range(0, even, {rows_of_tile}):
                    at = (k0 + i) * pad
                    skip = {lanes} if causal and k0 + i >= q0 + {lanes} else 0
                    many = {width} - skip
                    aside = i * {row} + skip * 4
                    below = skip * pad * 4
                    for j in range(0, e, {width}):
                        tile = i64_arg(args, 40) if j + {lanes} < pad else i64_arg(args, 41)
                        to = address(v_sum) + (at + j) * 4
                        left = scores + aside
                        right = address(g_rows) + below + j * 4
                        call_epilogue(tile, many, left, right, to, {row}, pad * 4, 1)
                    for j in range(0, d, {width}):
                        tile = i64_arg(args, 40) if j + {lanes} < pad else i64_arg(args, 41)
                        to = address(k_sum) + (at + j) * 4
                        left = slopes + aside
                        right = address(q_rows) + below + j * 4
                        call_epilogue(tile, many, left, right, to, {row}, pad * 4, 1)
            call_epilogue(shrink, grown, d, factors, 0, 0, 0, 0)
            base = outer * i64_arg(args, 26) + inner * i64_arg(args, 27)
            step = i64_arg(args, 28)
            gap = step * 4
            start = i64_arg(args, 6) + (base + q0 * step) * 4
            apart = count < {width} or size % {lanes} != 0
            if apart:
                start = scratch
                gap = pad * 4
{back_part}
            if apart:
                for i in range(count):
                    at = base + (q0 + i) * step
                    for j in range(d):
                        dq[at + j] = q_rows[i * pad + j]
        base = outer * i64_arg(args, 29) + inner * i64_arg(args, 30)
        step = i64_arg(args, 31)
        for i in range(all_keys):
            at = base + i * step
            for j in range(d):
                dk[at + j] = mul(k_sum[i * pad + j], scale)
        base = outer * i64_arg(args, 32) + inner * i64_arg(args, 33)
        step = i64_arg(args, 34)
        for i in range(all_keys):
            at = base + i * step
            for j in range(e):
                dv[at + j] = v_sum[i * pad + j]
"""
