"""The driver as LLVM text: the walk over a launch table, the parallel-for, the worker loop.

The pool is 64 i64 words (`POOL_WORDS`), fields by index below. `STATE` is the heart:
generation << 17 | open << 16 | active. A caller publishes a region by writing the job and then a
new generation with the open bit; a worker joins by a compare-and-swap that counts it in, takes
chunks until none is left, and counts itself out. The caller closes the region and waits for those
who joined, never for a worker that slept through it. Chunks are handed out dynamically: whole
grains, at least four chunks a thread where there is work for that. Kernels give the same bits for
any split.
"""

from __future__ import annotations

STATE, NEXT, SLEEPERS, STOP = 0, 8, 16, 17
ADDRESS, ARGS, EXTENT, CHUNK, LIMIT, SCRATCH, STRIDE = 24, 25, 26, 27, 28, 29, 30
BUSY, WORKERS, THREADS, SPIN, WANTED = 32, 33, 34, 35, 36
MUTEX, CONDITION = 40, 48
POOL_WORDS = 64

ROW_WORDS = 8
PROGRAM_WORDS = 8
TABLE, ROWS, PROGRAM_SCRATCH, PROGRAM_STRIDE, ERROR = 0, 1, 2, 3, 4

# The order of `entry(which)`.
FUNCTIONS = ("run", "python_run", "attach", "worker", "stop", "spin", "prepare", "set_starter")


def text(triple: str) -> str:
    """The LLVM text of the driver's module for a target triple."""
    return _TEMPLATE.replace("PAUSE", _pause(triple)).replace("DISPATCH", _dispatch())


def _pause(triple: str) -> str:
    if triple.startswith(("x86_64", "i386", "i686")):
        return 'call void asm sideeffect "pause", ""()'
    if triple.startswith(("aarch64", "arm64")):
        return 'call void asm sideeffect "isb", ""()'
    return 'call void asm sideeffect "", "~{memory}"()'


def _dispatch() -> str:
    """`entry(which)`: the address of a function, because a module exports one symbol."""
    cases = "\n".join(f"    i64 {n}, label %case{n}" for n in range(len(FUNCTIONS)))
    blocks = "\n".join(
        f"case{n}:\n  ret i64 ptrtoint (ptr @{name} to i64)" for n, name in enumerate(FUNCTIONS)
    )
    return f"""define i64 @entry(i64 %which) {{
  switch i64 %which, label %none [
{cases}
  ]
none:
  ret i64 0
{blocks}
}}"""


def _field(name: str, index: int, pool: str = "%pool") -> str:
    return f"{name} = getelementptr i64, ptr {pool}, i64 {index}"


_TEMPLATE = f"""
@pool = internal global ptr null
@starter = internal global ptr null

declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)
declare i32 @sched_yield()
declare i64 @PyLong_AsLongLong(ptr)
declare ptr @PyLong_FromLongLong(i64)
declare ptr @PyErr_Occurred()
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyObject_CallObject(ptr, ptr)
declare void @Py_DecRef(ptr)

define internal void @attach(i64 %address) {{
  %p = inttoptr i64 %address to ptr
  store atomic ptr %p, ptr @pool seq_cst, align 8
  ret void
}}

define internal void @set_starter(i64 %address) {{
  %p = inttoptr i64 %address to ptr
  store ptr %p, ptr @starter
  ret void
}}

define internal void @prepare(i64 %address) {{
  %pool = inttoptr i64 %address to ptr
  {_field("%mutex", MUTEX)}
  {_field("%condition", CONDITION)}
  %a = call i32 @pthread_mutex_init(ptr %mutex, ptr null)
  %b = call i32 @pthread_cond_init(ptr %condition, ptr null)
  ret void
}}

define internal void @spin(i64 %count) {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %j, %loop ]
  PAUSE
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %count
  br i1 %more, label %loop, label %done
done:
  ret void
}}

define internal void @wake(ptr %pool) noinline {{
  {_field("%mutex", MUTEX)}
  {_field("%condition", CONDITION)}
  %a = call i32 @pthread_mutex_lock(ptr %mutex)
  %b = call i32 @pthread_cond_broadcast(ptr %condition)
  %c = call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}}

define internal void @stop(i64 %address) {{
  %pool = inttoptr i64 %address to ptr
  {_field("%flag", STOP)}
  store atomic i64 1, ptr %flag seq_cst, align 8
  call void @wake(ptr %pool)
  ret void
}}

define internal void @work(ptr %pool, i64 %scratch) {{
entry:
  {_field("%address.p", ADDRESS)}
  {_field("%args.p", ARGS)}
  {_field("%extent.p", EXTENT)}
  {_field("%chunk.p", CHUNK)}
  {_field("%next", NEXT)}
  %address = load i64, ptr %address.p
  %kernel = inttoptr i64 %address to ptr
  %args = load i64, ptr %args.p
  %extent = load i64, ptr %extent.p
  %chunk = load i64, ptr %chunk.p
  br label %take
take:
  %begin = atomicrmw add ptr %next, i64 %chunk monotonic
  %some = icmp slt i64 %begin, %extent
  br i1 %some, label %run, label %done
run:
  %full = add i64 %begin, %chunk
  %end = call i64 @llvm.smin.i64(i64 %full, i64 %extent)
  call void %kernel(i64 %args, i64 %begin, i64 %end, i64 %scratch)
  br label %take
done:
  ret void
}}

declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)

define internal void @region(ptr %pool, ptr %row, i64 %scratch, i64 %stride, i64 %threads) {{
entry:
  %args.from = getelementptr i64, ptr %row, i64 1
  %extent.from = getelementptr i64, ptr %row, i64 2
  %grain.from = getelementptr i64, ptr %row, i64 3
  %address = load i64, ptr %row
  %args = load i64, ptr %args.from
  %extent = load i64, ptr %extent.from
  %grain.0 = load i64, ptr %grain.from
  %positive = icmp sgt i64 %grain.0, 0
  %grain = select i1 %positive, i64 %grain.0, i64 1
  %share = shl i64 %threads, 2
  %even = udiv i64 %extent, %share
  %even.up = add i64 %even, %grain
  %even.less = sub i64 %even.up, 1
  %grains = udiv i64 %even.less, %grain
  %some = call i64 @llvm.smax.i64(i64 %grains, i64 1)
  %chunk = mul i64 %some, %grain
  %limit = sub i64 %threads, 1
  {_field("%address.p", ADDRESS)}
  {_field("%args.p", ARGS)}
  {_field("%extent.p", EXTENT)}
  {_field("%chunk.p", CHUNK)}
  {_field("%limit.p", LIMIT)}
  {_field("%scratch.p", SCRATCH)}
  {_field("%stride.p", STRIDE)}
  {_field("%next", NEXT)}
  {_field("%sleepers.p", SLEEPERS)}
  store i64 %address, ptr %address.p
  store i64 %args, ptr %args.p
  store i64 %extent, ptr %extent.p
  store i64 %chunk, ptr %chunk.p
  store i64 %limit, ptr %limit.p
  store i64 %scratch, ptr %scratch.p
  store i64 %stride, ptr %stride.p
  store atomic i64 0, ptr %next monotonic, align 8
  %old = load atomic i64, ptr %pool monotonic, align 8
  %generation = lshr i64 %old, 17
  %generation.next = add i64 %generation, 1
  %shifted = shl i64 %generation.next, 17
  %open = or i64 %shifted, 65536
  store atomic i64 %open, ptr %pool seq_cst, align 8
  %sleepers = load atomic i64, ptr %sleepers.p seq_cst, align 8
  %asleep = icmp sgt i64 %sleepers, 0
  br i1 %asleep, label %rouse, label %go
rouse:
  call void @wake(ptr %pool)
  br label %go
go:
  call void @work(ptr %pool, i64 %scratch)
  %closed = atomicrmw and ptr %pool, i64 -65537 acq_rel
  br label %wait
wait:
  %spins = phi i64 [ 0, %go ], [ %spins.next, %again ]
  %state = load atomic i64, ptr %pool acquire, align 8
  %active = and i64 %state, 65535
  %finished = icmp eq i64 %active, 0
  br i1 %finished, label %done, label %pause
pause:
  PAUSE
  %spins.next = add i64 %spins, 1
  %long = icmp ugt i64 %spins.next, 4000
  br i1 %long, label %yield, label %again
yield:
  %ignored = call i32 @sched_yield()
  br label %again
again:
  br label %wait
done:
  ret void
}}

define internal void @worker(i64 %address) {{
entry:
  %pool = inttoptr i64 %address to ptr
  {_field("%sleepers.p", SLEEPERS)}
  {_field("%stop.p", STOP)}
  {_field("%limit.p", LIMIT)}
  {_field("%scratch.p", SCRATCH)}
  {_field("%stride.p", STRIDE)}
  {_field("%spin.p", SPIN)}
  {_field("%mutex", MUTEX)}
  {_field("%condition", CONDITION)}
  br label %loop
loop:
  %seen = phi i64 [ 0, %entry ], [ %seen, %idle ], [ %seen, %awake ],
    [ %generation, %full ], [ %seen, %try ], [ %generation, %joined ]
  %spins = phi i64 [ 0, %entry ], [ %spins.next, %idle ], [ 0, %awake ],
    [ %spins, %full ], [ 0, %try ], [ 0, %joined ]
  %stopped = load atomic i64, ptr %stop.p monotonic, align 8
  %quit = icmp ne i64 %stopped, 0
  br i1 %quit, label %leave, label %look
look:
  %state = load atomic i64, ptr %pool acquire, align 8
  %generation = lshr i64 %state, 17
  %bit = and i64 %state, 65536
  %is.open = icmp ne i64 %bit, 0
  %is.new = icmp ne i64 %generation, %seen
  %fresh = and i1 %is.open, %is.new
  br i1 %fresh, label %room, label %idle
room:
  %active = and i64 %state, 65535
  %limit = load atomic i64, ptr %limit.p monotonic, align 8
  %has.room = icmp slt i64 %active, %limit
  br i1 %has.room, label %try, label %full
full:
  br label %loop
try:
  %state.next = add i64 %state, 1
  %pair = cmpxchg ptr %pool, i64 %state, i64 %state.next acq_rel monotonic
  %won = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %won, label %joined, label %loop
joined:
  %slot = add i64 %active, 1
  %base = load i64, ptr %scratch.p
  %stride = load i64, ptr %stride.p
  %distance = mul i64 %slot, %stride
  %scratch = add i64 %base, %distance
  call void @work(ptr %pool, i64 %scratch)
  %left = atomicrmw sub ptr %pool, i64 1 release
  br label %loop
idle:
  PAUSE
  %spins.next = add i64 %spins, 1
  %bound = load atomic i64, ptr %spin.p monotonic, align 8
  %tired = icmp sgt i64 %spins.next, %bound
  br i1 %tired, label %sleep, label %loop
sleep:
  %l = call i32 @pthread_mutex_lock(ptr %mutex)
  %s = atomicrmw add ptr %sleepers.p, i64 1 seq_cst
  br label %check
check:
  %state.2 = load atomic i64, ptr %pool seq_cst, align 8
  %generation.2 = lshr i64 %state.2, 17
  %bit.2 = and i64 %state.2, 65536
  %is.open.2 = icmp ne i64 %bit.2, 0
  %is.new.2 = icmp ne i64 %generation.2, %seen
  %fresh.2 = and i1 %is.open.2, %is.new.2
  %stopped.2 = load atomic i64, ptr %stop.p seq_cst, align 8
  %quit.2 = icmp ne i64 %stopped.2, 0
  %stay = or i1 %fresh.2, %quit.2
  br i1 %stay, label %awake, label %doze
doze:
  %w = call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %awake
awake:
  %d = atomicrmw sub ptr %sleepers.p, i64 1 seq_cst
  %u = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %loop
leave:
  ret void
}}

define internal i64 @run(i64 %program) {{
entry:
  %p = inttoptr i64 %program to ptr
  %rows.p = getelementptr i64, ptr %p, i64 {ROWS}
  %scratch.p = getelementptr i64, ptr %p, i64 {PROGRAM_SCRATCH}
  %stride.p = getelementptr i64, ptr %p, i64 {PROGRAM_STRIDE}
  %error.p = getelementptr i64, ptr %p, i64 {ERROR}
  store i64 0, ptr %error.p
  %table = load ptr, ptr %p
  %rows = load i64, ptr %rows.p
  %scratch = load i64, ptr %scratch.p
  %stride = load i64, ptr %stride.p
  %pool = load atomic ptr, ptr @pool monotonic, align 8
  {_field("%busy.p", BUSY)}
  {_field("%threads.p", THREADS)}
  {_field("%workers.p", WORKERS)}
  {_field("%wanted.p", WANTED)}
  %threads = load atomic i64, ptr %threads.p monotonic, align 8
  %workers = load atomic i64, ptr %workers.p monotonic, align 8
  %several = icmp sgt i64 %threads, 1
  br i1 %several, label %take, label %begin
take:
  %pair = cmpxchg ptr %busy.p, i64 0, i64 1 acquire monotonic
  %won = extractvalue {{ i64, i1 }} %pair, 1
  br label %begin
begin:
  %mine = phi i1 [ false, %entry ], [ %won, %take ]
  %bytes = mul i64 %rows, {ROW_WORDS}
  %last = getelementptr i64, ptr %table, i64 %bytes
  %crew.0 = add i64 %workers, 1
  %crew = call i64 @llvm.smin.i64(i64 %crew.0, i64 %threads)
  br label %loop
loop:
  %row = phi ptr [ %table, %begin ], [ %row.next, %step ]
  %more = icmp ult ptr %row, %last
  br i1 %more, label %one, label %finish
one:
  %row.next = getelementptr i64, ptr %row, i64 {ROW_WORDS}
  %extent.p = getelementptr i64, ptr %row, i64 2
  %grain.p = getelementptr i64, ptr %row, i64 3
  %extent = load i64, ptr %extent.p
  %grain = load i64, ptr %grain.p
  %large = icmp sgt i64 %extent, %grain
  %split = and i1 %large, %mine
  br i1 %split, label %parallel, label %serial
parallel:
  %have = icmp sgt i64 %crew, 1
  br i1 %have, label %spread, label %wish
wish:
  store atomic i64 1, ptr %wanted.p monotonic, align 8
  br label %serial
spread:
  call void @region(ptr %pool, ptr %row, i64 %scratch, i64 %stride, i64 %crew)
  br label %step
serial:
  %args.p = getelementptr i64, ptr %row, i64 1
  %kernel = load ptr, ptr %row
  %args = load i64, ptr %args.p
  call void %kernel(i64 %args, i64 0, i64 %extent, i64 %scratch)
  br label %step
step:
  %seen = load i64, ptr %error.p
  %well = icmp eq i64 %seen, 0
  br i1 %well, label %loop, label %finish
finish:
  br i1 %mine, label %release, label %done
release:
  store atomic i64 0, ptr %busy.p release, align 8
  br label %done
done:
  %error = load i64, ptr %error.p
  ret i64 %error
}}

define internal ptr @python_run(ptr %self, ptr %argument) {{
entry:
  %program = call i64 @PyLong_AsLongLong(ptr %argument)
  %suspicious = icmp sle i64 %program, 0
  br i1 %suspicious, label %refuse, label %go
refuse:
  %raised = call ptr @PyErr_Occurred()
  %bad = icmp ne ptr %raised, null
  br i1 %bad, label %fail, label %nothing
nothing:
  %zero = call ptr @PyLong_FromLongLong(i64 0)
  ret ptr %zero
fail:
  ret ptr null
go:
  %thread = call ptr @PyEval_SaveThread()
  %error = call i64 @run(i64 %program)
  call void @PyEval_RestoreThread(ptr %thread)
  %pool = load ptr, ptr @pool
  {_field("%wanted.p", WANTED)}
  %wanted = load atomic i64, ptr %wanted.p monotonic, align 8
  %start = icmp ne i64 %wanted, 0
  br i1 %start, label %call, label %done
call:
  store atomic i64 0, ptr %wanted.p monotonic, align 8
  %starter = load ptr, ptr @starter
  %answer = call ptr @PyObject_CallObject(ptr %starter, ptr null)
  %broken = icmp eq ptr %answer, null
  br i1 %broken, label %fail, label %drop
drop:
  call void @Py_DecRef(ptr %answer)
  br label %done
done:
  %result = call ptr @PyLong_FromLongLong(i64 %error)
  ret ptr %result
}}

DISPATCH
"""
