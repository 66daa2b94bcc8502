"""Kernel sources of convolutions: the copy of the source, the packing functions, the result.

They are filled in with `gemm.names`.
"""

# Units are (plane, phase of each dimension). Phase p of a dimension with stride s holds the padded
# positions q * s + p * dilation % s.
SPREAD = """
def spread(args, begin, end, scratch):
    x = {storage}_ptr(args, 0)
    o = {kind}_ptr(args, 1)
    n0 = i64_arg(args, 2)
    n1 = i64_arg(args, 3)
    n2 = i64_arg(args, 4)
    q0 = i64_arg(args, 5)
    q1 = i64_arg(args, 6)
    q2 = i64_arg(args, 7)
    p0 = i64_arg(args, 8)
    p1 = i64_arg(args, 9)
    p2 = i64_arg(args, 10)
    s0 = i64_arg(args, 11)
    s1 = i64_arg(args, 12)
    s2 = i64_arg(args, 13)
    for u in range(begin, end):
        r2 = (u % p2) * i64_arg(args, 16) % s2 - i64_arg(args, 19)
        r1 = (u // p2 % p1) * i64_arg(args, 15) % s1 - i64_arg(args, 18)
        r0 = (u // (p2 * p1) % p0) * i64_arg(args, 14) % s0 - i64_arg(args, 17)
        base = u // (p2 * p1 * p0) * n0 * n1 * n2
        first = minimum(q2, maximum(0, (s2 - 1 - r2) // s2))
        last = minimum(q2, maximum(first, (n2 - r2 + s2 - 1) // s2))
        to = u * q0 * q1 * q2
        for i in range(q0):
            a = i * s0 + r0
            for j in range(q1):
                b = j * s1 + r1
                at = base + (a * n1 + b) * n2 + r2
                if a < 0 or a >= n0 or b < 0 or b >= n1:
                    for k in range(q2):
                        o[to + k] = {kind}(0)
                else:
                    for k in range(first):
                        o[to + k] = {kind}(0)
                    if s2 == 1:
                        for k in range(first, last):
                            o[to + k] = {load}(x[at + k])
                    else:
                        for k in range(first, last):
                            o[to + k] = {load}(x[at + k * s2])
                    for k in range(last, q2):
                        o[to + k] = {kind}(0)
                to += q2
"""

# B[(channel, tap), (row, pixel)]. Columns come in runs of contiguous pixels; a later run in a
# panel overwrites what an earlier one read beyond its end.
PATCHES = """
def patches(args, z, block, to):
    k0 = i64_arg(block, 0)
    kc = i64_arg(block, 1)
    j0 = i64_arg(block, 2)
    nc = i64_arg(block, 3)
    x = {kind}_ptr(args, 0)
    o = {kind}_at(to)
    plane = i64_arg(args, 1)
    channels = i64_arg(args, 2)
    taps = maximum(i64_arg(args, 3), 1)
    width = i64_arg(args, 4)
    height = i64_arg(args, 5)
    row = i64_arg(args, 6)
    depth = i64_arg(args, 7)
    base = (z * channels + k0 // taps) * plane
    first = k0 % taps
    w = j0 % width
    y = j0 // width % height
    up = j0 // width // height
    for p in range(0, nc, {nr}):
        cols = minimum(nc - p, {nr})
        j = 0
        while j < cols:
            at = base + up * depth + y * row + w - j
            d = p * kc
            tap = first
            if j == 0:
                for k in range(kc):
                    s = at + i64_arg(args, 8 + tap)
                    for i in range({nr}):
                        o[d + i] = x[s + i]
                    d += {nr}
                    tap += 1
                    if tap == taps:
                        tap = 0
                        at += plane
            else:
                for k in range(kc):
                    s = at + i64_arg(args, 8 + tap)
                    for i in range({nr}):
                        o[d + i] = select(i >= j, x[s + i], o[d + i])
                    d += {nr}
                    tap += 1
                    if tap == taps:
                        tap = 0
                        at += plane
            run = minimum(width - w, cols - j)
            j += run
            w += run
            if w == width:
                w = 0
                y += 1
                if y == height:
                    y = 0
                    up += 1
"""

# Left operand of the input's gradient: rows are input channels, k is (output channel, tap).
PACK_WEIGHT = """
def pack_weight(args, begin, end, scratch):
    x = {storage}_ptr(args, 0)
    o = {kind}_ptr(args, 1)
    m = i64_arg(args, 2)
    channels = i64_arg(args, 3)
    taps = i64_arg(args, 4)
    rs = i64_arg(args, 5)
    cs = i64_arg(args, 6)
    panels = (m + {mr} - 1) // {mr}
    for u in range(begin, end):
        i0 = (u % panels) * {mr}
        base = u // panels * channels * cs + i0 * rs
        rows = minimum(m - i0, {mr})
        to = u * channels * taps * {mr}
        for c in range(channels):
            for tap in range(taps):
                at = base + c * cs + i64_arg(args, 7 + tap)
                for i in range(rows):
                    o[to + i] = {load}(x[at + i * rs])
                for i in range(rows, {mr}):
                    o[to + i] = {kind}(0)
                to += {mr}
"""

# Units are rows of padded pixels of one image and group, [width, channels].
TURN = """
def turn(args, begin, end, scratch):
    x = {storage}_ptr(args, 0)
    o = {kind}_ptr(args, 1)
    channels = i64_arg(args, 2)
    n0 = i64_arg(args, 3)
    n1 = i64_arg(args, 4)
    n2 = i64_arg(args, 5)
    q0 = i64_arg(args, 6)
    q1 = i64_arg(args, 7)
    q2 = i64_arg(args, 8)
    l2 = i64_arg(args, 11)
    plane = n0 * n1 * n2
    for u in range(begin, end):
        b = u % q1 - i64_arg(args, 10)
        a = u // q1 % q0 - i64_arg(args, 9)
        at = u // (q1 * q0) * channels * plane + (a * n1 + b) * n2 - l2
        to = u * q2 * channels
        if a < 0 or a >= n0 or b < 0 or b >= n1:
            for k in range(q2 * channels):
                o[to + k] = {kind}(0)
        else:
            first = minimum(q2, l2)
            last = minimum(q2, n2 + l2)
            for k in range(first * channels):
                o[to + k] = {kind}(0)
            for c0 in range(0, channels, 16):
                c1 = minimum(c0 + 16, channels)
                for k in range(first, last):
                    for c in range(c0, c1):
                        o[to + k * channels + c] = {load}(x[at + c * plane + k])
            for k in range(last * channels, q2 * channels):
                o[to + k] = {kind}(0)
"""

# B[(image, pixel), (tap, channel)] of a part of the images or of one image's rows.
PIXELS = """
def pixels(args, z, block, to):
    k0 = i64_arg(block, 0)
    kc = i64_arg(block, 1)
    j0 = i64_arg(block, 2)
    nc = i64_arg(block, 3)
    x = {kind}_ptr(args, 0)
    o = {kind}_at(to)
    groups = i64_arg(args, 1)
    part_stride = i64_arg(args, 2)
    group_stride = i64_arg(args, 3)
    image_stride = i64_arg(args, 4)
    n0 = i64_arg(args, 5)
    n1 = i64_arg(args, 6)
    n2 = i64_arg(args, 7)
    s0 = i64_arg(args, 8)
    s1 = i64_arg(args, 9)
    s2 = i64_arg(args, 10)
    length = i64_arg(args, 11)
    e2 = k0 % n2
    e1 = k0 // n2 % n1
    e0 = k0 // (n2 * n1) % n0
    image = k0 // (n2 * n1 * n0)
    base = z // groups * part_stride + z % groups * group_stride
    base += image * image_stride + e0 * s0 + e1 * s1 + e2 * s2
    line = s1 - n2 * s2
    layer = s0 - n1 * s1
    volume = image_stride - n0 * s0
    tap = j0 // length
    c = j0 % length
    for p in range(0, nc, {nr}):
        cols = minimum(nc - p, {nr})
        j = 0
        while j < cols:
            s = base + i64_arg(args, 12 + tap) + c - j
            d = p * kc
            f2 = e2
            f1 = e1
            f0 = e0
            for k in range(kc):
                if j == 0:
                    for i in range({nr}):
                        o[d + i] = x[s + i]
                else:
                    for i in range({nr}):
                        o[d + i] = select(i >= j, x[s + i], o[d + i])
                d += {nr}
                s += s2
                f2 += 1
                if f2 == n2:
                    f2 = 0
                    s += line
                    f1 += 1
                    if f1 == n1:
                        f1 = 0
                        s += layer
                        f0 += 1
                        if f0 == n0:
                            f0 = 0
                            s += volume
            run = minimum(length - c, cols - j)
            j += run
            c += run
            if c == length:
                c = 0
                tap += 1
"""

# Units are rows of a product; the sum of its parts goes to a strided place.
PLACE = """
def place(args, begin, end, scratch):
    x = {kind}_ptr(args, 0)
    o = {storage}_ptr(args, 1)
    parts = i64_arg(args, 2)
    part = i64_arg(args, 3)
    n0 = i64_arg(args, 4)
    n1 = i64_arg(args, 5)
    n2 = i64_arg(args, 6)
    rs = i64_arg(args, 7)
    first = i64_arg(args, 8)
    s0 = i64_arg(args, 9)
    s1 = i64_arg(args, 10)
    s2 = i64_arg(args, 11)
    for u in range(begin, end):
        at = u * n0 * n1 * n2
        for i in range(n0):
            for j in range(n1):
                to = u * rs + first + i * s0 + j * s1
                if parts == 1:
                    for k in range(n2):
                        o[to + k * s2] = {store}(x[at + k])
                else:
                    for k in range(n2):
                        total = x[at + k]
                        for q in range(1, parts):
                            total = total + x[at + k + q * part]
                        o[to + k * s2] = {store}(total)
                at += n2
"""
