"""Checkpoints: both libraries read each other's, nothing is ever run, writes are atomic."""

import collections
import io
import os
import pickle
import zipfile

import numpy as np
import pytest

import tracecc as tc
from tracecc import nn, optim

torch = pytest.importorskip("torch")


def equal(a, b):
    if isinstance(a, (tc.Tensor, torch.Tensor)):
        assert str(a.dtype).split(".")[-1] == str(b.dtype).split(".")[-1]
        assert bool(a.requires_grad) == bool(b.requires_grad)
        np.testing.assert_array_equal(a.detach().double().numpy(), b.detach().double().numpy())
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for k in a:
            equal(a[k], b[k])
    elif isinstance(a, (list, tuple)) and not isinstance(a, str):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            equal(x, y)
    else:
        assert a == b


def content(library):
    made = {
        "w": library.nn.Parameter(library.arange(6.0).reshape(2, 3)),
        "list": [1, 2.5, "s", None, True, (1, 2), {3}],
        "ordered": collections.OrderedDict(a=library.ones(2, dtype=library.float64)),
        "scalar": library.tensor(3),
        "empty": library.zeros(0, 4),
        "transposed": library.arange(6).reshape(2, 3).T,
        "slice": library.arange(10.0)[2:9:3],
    }
    for name in ("float16", "bfloat16", "int8", "uint8", "int16", "int32", "bool"):
        made[name] = library.tensor([0, 1, 1]).to(getattr(library, name))
    return made


def test_torch_reads_what_save_wrote_under_weights_only(tmp_path):
    path = tmp_path / "a.pt"
    tc.save(content(tc), path)
    equal(torch.load(path, weights_only=True), content(torch))


def test_load_reads_what_torch_wrote(tmp_path):
    path = tmp_path / "a.pt"
    torch.save(content(torch), path)
    equal(tc.load(path), content(tc))
    buffer = io.BytesIO()
    tc.save(content(tc), buffer)
    buffer.seek(0)
    equal(tc.load(buffer), content(tc))


def test_views_share_memory_after_loading(tmp_path):
    for library, other in ((tc, torch), (torch, tc), (tc, tc)):
        base = library.arange(6.0)
        library.save({"base": base, "view": base[2:4]}, tmp_path / "v.pt")
        found = other.load(tmp_path / "v.pt")
        found["base"][2] = 50.0
        assert found["view"].tolist() == [50.0, 3.0]


@pytest.mark.parametrize("direction", ["from torch", "to torch"])
def test_a_run_continues_in_the_other_library(tmp_path, direction):
    first, second = (torch, tc) if direction == "from torch" else (tc, torch)
    x = np.random.default_rng(0).standard_normal((6, 3)).astype("float32")

    def make(library):
        model = library.nn.Sequential(
            library.nn.Linear(3, 4), library.nn.BatchNorm1d(4), library.nn.Linear(4, 1)
        )
        opt = library.optim.AdamW(model.parameters(), lr=0.05, amsgrad=True)
        return model, opt, library.optim.lr_scheduler.StepLR(opt, 2, 0.5)

    def steps(library, parts, n):
        model, opt, schedule = parts
        for _ in range(n):
            opt.zero_grad()
            loss = (model(library.tensor(x)) ** 2).mean()
            loss.backward()
            opt.step()
            schedule.step()
        return loss.item()

    one = make(first)
    steps(first, one, 3)
    first.save({str(i): p.state_dict() for i, p in enumerate(one)}, tmp_path / "run.pt")
    saved = second.load(tmp_path / "run.pt")
    two = make(second)
    for i, part in enumerate(two):
        part.load_state_dict(saved[str(i)])
    assert steps(second, two, 5) == pytest.approx(steps(first, one, 5), rel=1e-5)


def test_no_code_of_a_file_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(pickle.UnpicklingError, match=r"mkdir, which load\(\) does not run"):
        tc.load(tmp_path / "evil.pt", weights_only=False)
    assert not (tmp_path / "ran").exists()


def test_a_tensor_may_not_reach_beyond_its_memory(tmp_path):
    tc.save(tc.arange(4.0), tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        parts = {n: archive.read(n) for n in archive.namelist()}
    parts["archive/data/0"] = parts["archive/data/0"][:8]
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(pickle.UnpicklingError, match="storage 0"):
        tc.load(tmp_path / "b.pt")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.pt"
    tc.save({"x": 1}, path)
    with pytest.raises(pickle.PicklingError, match="state_dict"):
        tc.save({"f": nn.Linear(1, 1).forward}, path)
    assert tc.load(path) == {"x": 1}
    assert os.listdir(tmp_path) == ["a.pt"]


def test_safetensors_go_both_ways(tmp_path):
    safe = pytest.importorskip("safetensors.torch")
    path = tmp_path / "a.safetensors"
    names = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool")
    made = {n: tc.tensor([[1, 0], [1, 1]]).to(getattr(tc, n)) for n in names}
    tc.save(made, path)
    theirs = safe.load_file(path)
    equal(dict(sorted(made.items())), dict(sorted(theirs.items())))
    safe.save_file(theirs, path)
    equal(dict(sorted(tc.load(path).items())), dict(sorted(made.items())))
    with pytest.raises(TypeError, match="names and tensors"):
        tc.save([1], path)


def test_random_state_restores_the_stream():
    tc.manual_seed(5)
    state = tc.get_rng_state()
    a = tc.rand(3)
    tc.set_rng_state(state)
    np.testing.assert_array_equal(tc.rand(3).numpy(), a.numpy())
    generator = tc.Generator().manual_seed(5)
    np.testing.assert_array_equal(tc.rand(3, generator=generator).numpy(), a.numpy())


def test_an_optimizer_without_state_loads(tmp_path):
    opt = optim.SGD([nn.Parameter(tc.ones(2))], lr=0.1)
    tc.save(opt.state_dict(), tmp_path / "o.pt")
    opt.load_state_dict(torch.load(tmp_path / "o.pt", weights_only=True))
