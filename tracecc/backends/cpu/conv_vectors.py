"""The parts of convolutions that are vector code: register tile, copy of rows, transposition."""

from __future__ import annotations

from tracecc.backends.cpu import toolchain
from tracecc.backends.cpu.microkernel import Tile, declare_multiply, multiply


def compile_copy(shape: Tile, *, walks_taps: bool) -> toolchain.Kernel:
    """`entry(to, from, rows, step, tap, low, _)`: one vector of each row of a panel of B.

    Lanes from `low` on are written. `step` is the bytes from one source row to the next or, if
    `walks_taps`, the arguments of `patches`, whose table then says where each row lies.
    """
    return toolchain.compile_ir(lambda: _copy(shape, walks_taps), f"copy 1 {walks_taps} {shape}")


def _copy(shape: Tile, walks_taps: bool) -> str:
    vector, lanes, size = shape.vector, f"<{shape.lanes} x i64>", shape.itemsize
    numbers = ", ".join(f"i64 {i}" for i in range(shape.lanes))
    text = [
        "define void @entry(i64 %to, i64 %from, i64 %rows, i64 %step, i64 %tap, i64 %low, "
        "i64 %unused) {",
        "start:",
        f"  %low0 = insertelement {lanes} undef, i64 %low, i32 0",
        f"  %lows = shufflevector {lanes} %low0, {lanes} undef, "
        f"<{shape.lanes} x i32> zeroinitializer",
        f"  %mask = icmp sge {lanes} <{numbers}>, %lows",
    ]
    if walks_taps:
        text += [
            "  %ap = inttoptr i64 %step to ptr",
            "  %planep = getelementptr i64, ptr %ap, i64 1",
            "  %plane = load i64, ptr %planep",
            f"  %planeb = mul i64 %plane, {size}",
            "  %tapsp = getelementptr i64, ptr %ap, i64 3",
            "  %taps = load i64, ptr %tapsp",
            "  %table = getelementptr i64, ptr %ap, i64 9",
        ]
    text += [
        "  %some = icmp sgt i64 %rows, 0",
        "  %all = icmp sle i64 %low, 0",
        "  br i1 %some, label %enter, label %done",
        "enter:",
        "  br i1 %all, label %whole, label %mixed",
    ]
    for name in ("whole", "mixed"):
        text += [
            f"{name}:",
            f"  %k{name} = phi i64 [%rows, %enter], [%l{name}, %{name}]",
            f"  %d{name} = phi i64 [%to, %enter], [%e{name}, %{name}]",
            f"  %s{name} = phi i64 [%from, %enter], [%u{name}, %{name}]",
        ]
        if walks_taps:
            text += [
                f"  %t{name} = phi i64 [%tap, %enter], [%v{name}, %{name}]",
                f"  %op{name} = getelementptr i64, ptr %table, i64 %t{name}",
                f"  %o{name} = load i64, ptr %op{name}",
                f"  %ob{name} = mul i64 %o{name}, {size}",
                f"  %a{name} = add i64 %s{name}, %ob{name}",
                f"  %p{name} = inttoptr i64 %a{name} to ptr",
                f"  %n{name} = add i64 %t{name}, 1",
                f"  %w{name} = icmp eq i64 %n{name}, %taps",
                f"  %v{name} = select i1 %w{name}, i64 0, i64 %n{name}",
                f"  %x{name} = add i64 %s{name}, %planeb",
                f"  %u{name} = select i1 %w{name}, i64 %x{name}, i64 %s{name}",
            ]
        else:
            text += [
                f"  %p{name} = inttoptr i64 %s{name} to ptr",
                f"  %u{name} = add i64 %s{name}, %step",
            ]
        text += [
            f"  %q{name} = inttoptr i64 %d{name} to ptr",
            f"  %r{name} = load {vector}, ptr %p{name}, align {size}",
        ]
        value = f"%r{name}"
        if name == "mixed":
            text += [
                f"  %old = load {vector}, ptr %q{name}, align {size}",
                f"  %new = select <{shape.lanes} x i1> %mask, {vector} {value}, {vector} %old",
            ]
            value = "%new"
        text += [
            f"  store {vector} {value}, ptr %q{name}, align {size}",
            f"  %e{name} = add i64 %d{name}, {shape.nr * size}",
            f"  %l{name} = sub i64 %k{name}, 1",
            f"  %m{name} = icmp sgt i64 %l{name}, 0",
            f"  br i1 %m{name}, label %{name}, label %done",
        ]
    return "\n".join([*text, "done:", "  ret void", "}", ""])


def compile_tile(shape: Tile) -> toolchain.Kernel:
    """`entry(K, A, B, C, ldc, args, _)`: C = A B, where `args` (of `tiles`) say where B's rows lie.

    `ldc` is in bytes.
    """
    return toolchain.compile_ir(lambda: _tile(shape), f"conv tile 2 {shape}")


def _tile(shape: Tile) -> str:
    size, lanes, element, vector = shape.itemsize, shape.lanes, shape.element, shape.vector
    cells = [(i, j) for i in range(shape.mr) for j in range(2)]
    text = [
        declare_multiply(shape),
        "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
        "define void @entry(i64 %K, i64 %A, i64 %B, i64 %C, i64 %ldc, i64 %args, i64 %unused) {",
        "start:",
        "  %ap = inttoptr i64 %args to ptr",
        "  %planep = getelementptr i64, ptr %ap, i64 1",
        "  %plane = load i64, ptr %planep",
        f"  %planeb = mul i64 %plane, {size}",
        "  %tapsp = getelementptr i64, ptr %ap, i64 3",
        "  %taps = load i64, ptr %tapsp",
        "  %table = getelementptr i64, ptr %ap, i64 20",
        "  %some = icmp sgt i64 %K, 0",
        "  br i1 %some, label %loop, label %done",
        "loop:",
        "  %k = phi i64 [0, %start], [%k1, %loop]",
        "  %a = phi i64 [%A, %start], [%a1, %loop]",
        "  %b = phi i64 [%B, %start], [%b2, %loop]",
        "  %tap = phi i64 [0, %start], [%tap2, %loop]",
    ]
    text += [
        f"  %c{i}_{j} = phi {vector} [zeroinitializer, %start], [%n{i}_{j}, %loop]"
        for i, j in cells
    ]
    text += [
        "  %offp = getelementptr i64, ptr %table, i64 %tap",
        "  %off = load i64, ptr %offp",
        f"  %offb = mul i64 %off, {size}",
        "  %at = add i64 %b, %offb",
        "  %tap1 = add i64 %tap, 1",
        "  %wrap = icmp eq i64 %tap1, %taps",
        "  %tap2 = select i1 %wrap, i64 0, i64 %tap1",
        "  %b1 = add i64 %b, %planeb",
        "  %b2 = select i1 %wrap, i64 %b1, i64 %b",
    ]
    # The rows of the next plane are on their way while this one's are used.
    text.append("  %ahead = add i64 %at, %planeb")
    for j in range(0, 2 * lanes * size + 64, 64):
        text += [
            f"  %fa{j} = add i64 %ahead, {j}",
            f"  %fp{j} = inttoptr i64 %fa{j} to ptr",
            f"  call void @llvm.prefetch.p0(ptr %fp{j}, i32 0, i32 3, i32 1)",
        ]
    for j in range(2):
        text += [
            f"  %bi{j} = add i64 %at, {j * lanes * size}",
            f"  %bp{j} = inttoptr i64 %bi{j} to ptr",
            f"  %bv{j} = load {vector}, ptr %bp{j}, align {size}",
        ]
    for i in range(shape.mr):
        text += [
            f"  %ai{i} = add i64 %a, {i * size}",
            f"  %ap{i} = inttoptr i64 %ai{i} to ptr",
            f"  %as{i} = load {element}, ptr %ap{i}, align {size}",
            f"  %ae{i} = insertelement {vector} undef, {element} %as{i}, i32 0",
            f"  %av{i} = shufflevector {vector} %ae{i}, {vector} undef, "
            f"<{lanes} x i32> zeroinitializer",
        ]
        for j in range(2):
            text += multiply(shape, f"%n{i}_{j}", f"%av{i}", f"%bv{j}", f"%c{i}_{j}")
    text += [
        "  %k1 = add i64 %k, 1",
        f"  %a1 = add i64 %a, {shape.mr * size}",
        "  %more = icmp slt i64 %k1, %K",
        "  br i1 %more, label %loop, label %done",
        "done:",
    ]
    text += [
        f"  %r{i}_{j} = phi {vector} [zeroinitializer, %start], [%n{i}_{j}, %loop]"
        for i, j in cells
    ]
    for i, j in cells:
        at = f"{i}_{j}"
        text += [
            f"  %row{at} = mul i64 %ldc, {i}",
            f"  %base{at} = add i64 %C, %row{at}",
            f"  %to{at} = add i64 %base{at}, {j * lanes * size}",
            f"  %p{at} = inttoptr i64 %to{at} to ptr",
            f"  store {vector} %r{at}, ptr %p{at}, align {size}",
        ]
    return "\n".join([*text, "  ret void", "}", ""])


def compile_transpose(shape: Tile, *, widens: bool = False) -> toolchain.Kernel:
    """`entry(to, from, to stride, from stride, ...)` in bytes: a square as wide as a vector.

    With `widens` it is of bf16, and becomes one of f32.
    """
    key = f"transpose 1 {shape.kind} {shape.lanes} {widens}"
    return toolchain.compile_ir(lambda: _transpose(shape, widens), key)


def _transpose(shape: Tile, widens: bool) -> str:
    lanes, size, vector = shape.lanes, shape.itemsize, shape.vector
    text = [
        "define void @entry(i64 %to, i64 %from, i64 %ts, i64 %fs, i64 %u0, i64 %u1, i64 %u2) {",
    ]
    for i in range(lanes):
        text += [
            f"  %fo{i} = mul i64 %fs, {i}",
            f"  %fa{i} = add i64 %from, %fo{i}",
            f"  %fp{i} = inttoptr i64 %fa{i} to ptr",
        ]
        text += (
            _widened(lanes, i)
            if widens
            else [f"  %v0_{i} = load {vector}, ptr %fp{i}, align {size}"]
        )
    # Each step exchanges one bit of the row's number with the same bit of the lane's.
    level, bit = 0, 1
    while bit < lanes:
        upper = [n if not n & bit else lanes + n - bit for n in range(lanes)]
        lower = [n + bit if not n & bit else lanes + n for n in range(lanes)]
        for i in range(lanes):
            first, second = i & ~bit, i | bit
            order = ", ".join(f"i32 {n}" for n in (lower if i & bit else upper))
            text.append(
                f"  %v{level + 1}_{i} = shufflevector {vector} %v{level}_{first}, "
                f"{vector} %v{level}_{second}, <{lanes} x i32> <{order}>"
            )
        level, bit = level + 1, bit * 2
    for i in range(lanes):
        text += [
            f"  %to{i} = mul i64 %ts, {i}",
            f"  %ta{i} = add i64 %to, %to{i}",
            f"  %tp{i} = inttoptr i64 %ta{i} to ptr",
            f"  store {vector} %v{level}_{i}, ptr %tp{i}, align {size}",
        ]
    return "\n".join([*text, "  ret void", "}", ""])


def _widened(lanes: int, i: int) -> list[str]:
    """Loads row `i` of a square of bf16 as f32."""
    half, whole = f"<{lanes} x i16>", f"<{lanes} x i32>"
    shift = ", ".join(["i32 16"] * lanes)
    return [
        f"  %h{i} = load {half}, ptr %fp{i}, align 2",
        f"  %w{i} = zext {half} %h{i} to {whole}",
        f"  %s{i} = shl {whole} %w{i}, <{shift}>",
        f"  %v0_{i} = bitcast {whole} %s{i} to <{lanes} x float>",
    ]
