"""Kernel sources of convolutions: the copy of the source, the packing functions, the result.

`conv_planes.compile_source` fills them in.
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

# B[(channel, tap), (row, pixel)]. Columns come in runs of contiguous pixels; in a vector that holds
# several, each one overwrites what the one before read beyond its end.
PATCHES = """
def patches(args, z, block, to):
    k0 = i64_arg(block, 0)
    kc = i64_arg(block, 1)
    j0 = i64_arg(block, 2)
    nc = i64_arg(block, 3)
    x = i64_arg(args, 0)
    plane = i64_arg(args, 1)
    channels = i64_arg(args, 2)
    taps = maximum(i64_arg(args, 3), 1)
    width = i64_arg(args, 4)
    height = i64_arg(args, 5)
    row = i64_arg(args, 6)
    depth = i64_arg(args, 7)
    copy = i64_arg(args, 8)
    base = (z * channels + k0 // taps) * plane
    first = k0 % taps
    w = j0 % width
    y = j0 // width % height
    up = j0 // width // height
    for p in range(0, nc, {lanes}):
        cols = minimum(nc - p, {lanes})
        d = to + (p // {nr} * {nr} * kc + p % {nr}) * {size}
        j = 0
        while j < cols:
            s = x + (base + up * depth + y * row + w - j) * {size}
            call_epilogue(copy, d, s, kc, args, first, j, 0)
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

# The weight as a left operand: k is (channel, tap). Units are panels of one group.
PACK_WEIGHT = """
def pack_weight(args, begin, end, scratch):
    x = {storage}_ptr(args, 0)
    o = {kind}_ptr(args, 1)
    m = i64_arg(args, 2)
    channels = i64_arg(args, 3)
    taps = i64_arg(args, 4)
    rs = i64_arg(args, 5)
    cs = i64_arg(args, 6)
    gs = i64_arg(args, 7)
    mr = i64_arg(args, 8)
    panels = (m + mr - 1) // mr
    for u in range(begin, end):
        i0 = (u % panels) * mr
        base = u // panels * gs + i0 * rs
        rows = minimum(m - i0, mr)
        to = u * channels * taps * mr
        for c in range(channels):
            for tap in range(taps):
                at = base + c * cs + i64_arg(args, 9 + tap)
                for i in range(rows):
                    o[to + i] = {load}(x[at + i * rs])
                for i in range(rows, mr):
                    o[to + i] = {kind}(0)
                to += mr
"""

# Register tiles over runs of padded positions. Units are (image and group, layer, block of rows,
# block of positions); the results between the rows of pixels are dropped.
TILES = """
def tiles(args, begin, end, scratch):
    x = i64_arg(args, 0)
    plane = i64_arg(args, 1)
    channels = i64_arg(args, 2)
    width = i64_arg(args, 4)
    height = i64_arg(args, 5)
    row = i64_arg(args, 6)
    depth = i64_arg(args, 7)
    micro = i64_arg(args, 8)
    a = i64_arg(args, 9)
    o = {result}_ptr(args, 10)
    epilogue = i64_arg(args, 11)
    epilogue_args = i64_arg(args, 12)
    m = i64_arg(args, 13)
    layers = i64_arg(args, 14)
    groups = i64_arg(args, 15)
    columns = i64_arg(args, 16)
    blocks = i64_arg(args, 17)
    mr = i64_arg(args, 19)
    mb = i64_arg(args, 18) * mr
    t = {kind}_at(scratch)
    k = channels * i64_arg(args, 3)
    panels = (m + mr - 1) // mr
    length = (height - 1) * row + width
    for u in range(begin, end):
        first = u % columns * {nb}
        i0 = u // columns % blocks * mb
        layer = u // (columns * blocks) % layers
        z = u // (columns * blocks * layers)
        n = minimum({nb}, length - first)
        rows = minimum(mb, m - i0)
        left = a + (z % groups * panels * mr + i0) * k * {size}
        right = x + (z * channels * plane + layer * depth + first) * {size}
        for i in range(0, rows, mr):
            for j in range(0, n, {nr}):
                call_epilogue(
                    micro,
                    k,
                    left + i * k * {size},
                    right + j * {size},
                    scratch + (i * {nb} + j) * {size},
                    {nb} * {size},
                    args,
                    0,
                )
        for y in range(first // row, (first + n - 1) // row + 1):
            at = maximum(first, y * row)
            count = minimum(first + n, y * row + width) - at
            col = (layer * height + y) * width + at - y * row
            if count > 0:
                if epilogue != 0:
                    tile = scratch + (at - first) * {size}
                    call_epilogue(
                        epilogue, epilogue_args, tile, {nb}, z * m + i0, rows, col, count
                    )
                else:
                    for i in range(rows):
                        to = (z * m + i0 + i) * layers * height * width + col
                        for j in range(count):
                            o[to + j] = {put}(t[i * {nb} + at - first + j])
"""

# Units are rows of padded pixels of one image and group, [width, pitch]: channels, then zeros.
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
    pitch = i64_arg(args, 13)
    plane = n0 * n1 * n2
    for u in range(begin, end):
        b = u % q1 - i64_arg(args, 10)
        a = u // q1 % q0 - i64_arg(args, 9)
        at = u // (q1 * q0) * channels * plane + (a * n1 + b) * n2 - l2
        to = u * q2 * pitch
        if a < 0 or a >= n0 or b < 0 or b >= n1:
            for k in range(q2 * pitch):
                o[to + k] = {kind}(0)
        else:
            first = minimum(q2, l2)
            last = minimum(q2, n2 + l2)
            for k in range(first * pitch):
                o[to + k] = {kind}(0)
            for c0 in range(0, channels, {lanes}):
                c1 = minimum(c0 + {lanes}, channels)
                if {turns} and c1 - c0 == {lanes} and last - first >= {lanes}:
                    for k in range(first, last, {lanes}):
                        # The last square overlaps the one before.
                        k0 = minimum(k, last - {lanes})
                        call_epilogue(
                            i64_arg(args, 12),
                            i64_arg(args, 1) + (to + k0 * pitch + c0) * {size},
                            i64_arg(args, 0) + (at + c0 * plane + k0) * {bytes},
                            pitch * {size},
                            plane * {bytes},
                            0,
                            0,
                            0,
                        )
                else:
                    for k in range(first, last):
                        for c in range(c0, c1):
                            o[to + k * pitch + c] = {load}(x[at + c * plane + k])
            for k in range(first, last):
                for c in range(channels, pitch):
                    o[to + k * pitch + c] = {kind}(0)
            for k in range(last * pitch, q2 * pitch):
                o[to + k] = {kind}(0)
"""

# B[(image, pixel), (tap, channel)] of a part of the images or of one image's rows.
PIXELS = """
def pixels(args, z, block, to):
    k0 = i64_arg(block, 0)
    kc = i64_arg(block, 1)
    j0 = i64_arg(block, 2)
    nc = i64_arg(block, 3)
    x = i64_arg(args, 0)
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
    copy = i64_arg(args, 12)
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
    for p in range(0, nc, {lanes}):
        cols = minimum(nc - p, {lanes})
        j = 0
        while j < cols:
            d = to + (p // {nr} * {nr} * kc + p % {nr}) * {size}
            s = base + i64_arg(args, 13 + tap) + c - j
            f2 = e2
            f1 = e1
            f0 = e0
            left = kc
            while left > 0:
                rows = minimum(left, n2 - f2)
                call_epilogue(copy, d, x + s * {size}, rows, s2 * {size}, 0, j, 0)
                d += rows * {nr} * {size}
                s += rows * s2
                left -= rows
                f2 += rows
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

# Few output channels in a group (depthwise): no product. Units are planes of the result; a run of
# padded positions is summed over channels and taps in scratch, then its pixels are stored.
DIRECT = """
def direct(args, begin, end, scratch):
    x = {kind}_ptr(args, 0)
    w = {storage}_ptr(args, 1)
    o = {result}_ptr(args, 2)
    epilogue = i64_arg(args, 3)
    plane = i64_arg(args, 5)
    channels = i64_arg(args, 6)
    taps = i64_arg(args, 7)
    width = i64_arg(args, 8)
    height = i64_arg(args, 9)
    row = i64_arg(args, 10)
    depth = i64_arg(args, 11)
    layers = i64_arg(args, 12)
    outputs = i64_arg(args, 13)
    groups = i64_arg(args, 14)
    wc = i64_arg(args, 17)
    sums = {kind}_at(scratch)
    length = (height - 1) * row + width
    for u in range(begin, end):
        z = u // outputs
        v0 = (z % groups) * i64_arg(args, 15) + u % outputs * i64_arg(args, 16)
        for layer in range(layers):
            for a in range(0, length, {run}):
                n = minimum(length - a, {run})
                for i in range(n):
                    sums[i] = {kind}(0)
                for c in range(channels):
                    at = (z * channels + c) * plane + layer * depth + a
                    for tap in range(taps):
                        s = at + i64_arg(args, 18 + 2 * tap)
                        v = {load}(w[v0 + c * wc + i64_arg(args, 19 + 2 * tap)])
                        for i in range(n):
                            sums[i] = sums[i] + v * x[s + i]
                for y in range(a // row, (a + n - 1) // row + 1):
                    first = maximum(a, y * row)
                    count = minimum(a + n, y * row + width) - first
                    col = (layer * height + y) * width + first - y * row
                    if epilogue != 0 and count > 0:
                        call_epilogue(
                            epilogue,
                            i64_arg(args, 4),
                            scratch + (first - a) * {size},
                            count,
                            u,
                            1,
                            col,
                            count,
                        )
                    else:
                        to = u * layers * height * width + col
                        for i in range(count):
                            o[to + i] = {put}(sums[first - a + i])
"""

# The weight's gradient of few channels in a group: units are (output channel, channel of its
# group). Every lane and tap has a sum of its own over all images and rows.
DIRECT_WEIGHT = """
def direct_weight(args, begin, end, scratch):
    x = {kind}_ptr(args, 0)
    g = {storage}_ptr(args, 1)
    o = {storage}_ptr(args, 2)
    images = i64_arg(args, 3)
    groups = i64_arg(args, 4)
    plane = i64_arg(args, 5)
    channels = i64_arg(args, 6)
    taps = i64_arg(args, 7)
    width = i64_arg(args, 8)
    height = i64_arg(args, 9)
    row = i64_arg(args, 10)
    depth = i64_arg(args, 11)
    layers = i64_arg(args, 12)
    outputs = i64_arg(args, 13)
    sums = {kind}_at(scratch)
    lanes = minimum(width, {run})
    for u in range(begin, end):
        group = u // channels // outputs
        for i in range(taps * lanes):
            sums[i] = {kind}(0)
        for image in range(images):
            at = ((image * groups + group) * channels + u % channels) * plane
            b = (image * groups * outputs + u // channels) * layers * height * width
            for layer in range(layers):
                for y in range(height):
                    for a in range(0, width, {run}):
                        n = minimum(width - a, {run})
                        for tap in range(taps):
                            s = at + layer * depth + y * row + a + i64_arg(args, 14 + tap)
                            t = tap * lanes
                            for i in range(n):
                                sums[t + i] = sums[t + i] + {load}(g[b + a + i]) * x[s + i]
                    b += width
        for tap in range(taps):
            total = {kind}(0)
            for i in range(lanes):
                total = total + sums[tap * lanes + i]
            o[u * taps + tap] = {store}(total)
"""
