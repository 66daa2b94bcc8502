"""Workloads for the side-by-side speed table, written once against torch's public API.

Each builder takes the library under test (`torch`, or anything with its names) and returns
(step, inputs): `step(*inputs)` is what is timed. JAX versions of the same work are in
workloads_jax.py. Each builder takes its sizes as keyword arguments.
"""

import numpy as np

R = np.random.RandomState


def _f(rs, *shape):
    return rs.standard_normal(shape).astype("float32")


def gelu_chain(t, n=1 << 23):
    rs = R(0)
    x, y = t.from_numpy(_f(rs, n)), t.from_numpy(_f(rs, n))

    def step(x, y):
        g = 0.5 * x * (1 + t.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))
        return g * t.sigmoid(y) + t.exp(-y * y) * x

    return step, (x, y)


def softmax_rows(t, b=16384, n=512):
    x = t.from_numpy(_f(R(0), b, n))
    return (lambda x: t.nn.functional.softmax(x, dim=-1)), (x,)


def layernorm_gelu(t, b=8192, n=768):
    x = t.from_numpy(_f(R(0), b, n))
    w, c = t.from_numpy(_f(R(1), n)), t.from_numpy(_f(R(2), n))
    F = t.nn.functional
    return (lambda x: F.gelu(F.layer_norm(x, (n,), w, c)) + x), (x,)


def column_stats(t, b=65536, n=128):
    x = t.from_numpy(_f(R(0), b, n))

    def step(x):
        m = x.mean(0)
        d = x - m
        return d / ((d * d).mean(0) + 1e-5).sqrt()

    return step, (x,)


def gemm_bias_relu(t, m=1024, k=1024, n=1024):
    a, b, c = (t.from_numpy(_f(R(i), *s)) for i, s in enumerate([(m, k), (k, n), (n,)]))
    return (lambda a, b, c: t.relu(a @ b + c)), (a, b, c)


def gemm_small(t, m=128, k=256, n=96):
    return gemm_bias_relu(t, m, k, n)


def batched_attention(t, b=8, h=8, s=256, d=64):
    q, k, v = (t.from_numpy(_f(R(i), b, h, s, d)) for i in range(3))
    F = t.nn.functional
    return (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)), (q, k, v)


def conv_block(t, b=16, c=64, hw=56):
    nn = t.nn
    m = nn.Sequential(nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c), nn.ReLU())
    m.eval()
    x = t.from_numpy(_f(R(0), b, c, hw, hw))

    def step(x):
        with t.no_grad():
            return m(x)

    return step, (x,)


def _train(t, model, opt, x, y):
    loss_fn = t.nn.CrossEntropyLoss()

    def step(x, y):
        opt.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        opt.step()
        return loss

    return step, (t.from_numpy(x), t.from_numpy(y))


def tiny_mlp_train(t, b=32, d=16, h=64, k=3):
    nn = t.nn
    m = nn.Sequential(nn.Linear(d, h), nn.Tanh(), nn.Linear(h, h), nn.Tanh(), nn.Linear(h, k))
    rs = R(0)
    return _train(t, m, t.optim.Adam(m.parameters(), lr=1e-3), _f(rs, b, d), rs.randint(0, k, b))


def mlp_train(t, b=128, d=784, h=512, k=10):
    nn = t.nn
    m = nn.Sequential(
        nn.Linear(d, h), nn.ReLU(), nn.Linear(h, h // 2), nn.ReLU(), nn.Linear(h // 2, k)
    )
    rs = R(0)
    return _train(t, m, t.optim.Adam(m.parameters(), lr=1e-3), _f(rs, b, d), rs.randint(0, k, b))


def cnn_train(t, b=64, c=1, hw=28, k=10):
    nn = t.nn
    m = nn.Sequential(
        nn.Conv2d(c, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * ((hw - 4) // 2) ** 2, 128),
        nn.ReLU(),
        nn.Linear(128, k),
    )
    rs = R(0)
    return _train(
        t,
        m,
        t.optim.SGD(m.parameters(), lr=0.01, momentum=0.9),
        _f(rs, b, c, hw, hw),
        rs.randint(0, k, b),
    )


def _basic_block(nn, cin, cout, stride):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.c1, self.b1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
            self.c2, self.b2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)
            self.relu = nn.ReLU()
            self.down = None
            if stride != 1 or cin != cout:
                self.down = nn.Sequential(
                    nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)
                )

        def forward(self, x):
            r = x if self.down is None else self.down(x)
            return self.relu(self.b2(self.c2(self.relu(self.b1(self.c1(x))))) + r)

    return Block()


def _resnet18(t, k=10, cifar=True):
    nn = t.nn
    stem = (
        [nn.Conv2d(3, 64, 3, 1, 1, bias=False)]
        if cifar
        else [nn.Conv2d(3, 64, 7, 2, 3, bias=False)]
    )
    layers = stem + [nn.BatchNorm2d(64), nn.ReLU()] + ([] if cifar else [nn.MaxPool2d(3, 2, 1)])
    cin = 64
    for cout, s in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        layers.append(_basic_block(nn, cin, cout, s))
        cin = cout
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, k))


def resnet18_cifar_train(t, b=16):
    m = _resnet18(t)
    rs = R(0)
    return _train(
        t,
        m,
        t.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4),
        _f(rs, b, 3, 32, 32),
        rs.randint(0, 10, b),
    )


def resnet18_infer(t, b=1, hw=224):
    m = _resnet18(t, 1000, cifar=False)
    m.eval()

    def step(x):
        with t.no_grad():
            return m(x)

    return step, (t.from_numpy(_f(R(0), b, 3, hw, hw)),)


def _gpt(t, vocab, d, heads, layers, ctx):
    nn, F = t.nn, t.nn.functional

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.n1, self.n2 = nn.LayerNorm(d), nn.LayerNorm(d)
            self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
            self.fc, self.out = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

        def forward(self, x):
            B, T, C = x.shape
            q, k, v = self.qkv(self.n1(x)).split(d, dim=2)
            q, k, v = (u.view(B, T, heads, d // heads).transpose(1, 2) for u in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.proj(y.transpose(1, 2).contiguous().view(B, T, C))
            return x + self.out(F.gelu(self.fc(self.n2(x))))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.tok, self.pos = nn.Embedding(vocab, d), nn.Embedding(ctx, d)
            self.blocks = nn.ModuleList([Block() for _ in range(layers)])
            self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, vocab, bias=False)

        def forward(self, i):
            x = self.tok(i) + self.pos(t.arange(i.shape[1]))
            for b in self.blocks:
                x = b(x)
            return self.head(self.norm(x)).view(-1, vocab)

    return GPT()


def gpt_train(t, b=8, ctx=128, d=128, heads=4, layers=4, vocab=96):
    m = _gpt(t, vocab, d, heads, layers, ctx)
    rs = R(0)
    return _train(
        t,
        m,
        t.optim.AdamW(m.parameters(), lr=3e-4),
        rs.randint(0, vocab, (b, ctx)),
        rs.randint(0, vocab, b * ctx),
    )


def lstm_train(t, b=32, T=64, d=64, h=128, vocab=64):
    nn = t.nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.r, self.o = (
                nn.Embedding(vocab, d),
                nn.LSTM(d, h, batch_first=True),
                nn.Linear(h, vocab),
            )

        def forward(self, i):
            return self.o(self.r(self.e(i))[0]).reshape(-1, vocab)

    m = Net()
    rs = R(0)
    return _train(
        t,
        m,
        t.optim.Adam(m.parameters(), lr=1e-3),
        rs.randint(0, vocab, (b, T)),
        rs.randint(0, vocab, b * T),
    )


def nbody_grad(t, n=512):
    x = t.from_numpy(_f(R(0), n, 3))
    x.requires_grad_(True)

    def step(x):
        d = x.unsqueeze(0) - x.unsqueeze(1)
        e = (1.0 / ((d * d).sum(-1) + 1e-2).sqrt()).sum()
        (g,) = t.autograd.grad(e, (x,))
        return e.detach(), g

    return step, (x,)


WORKLOADS = {
    f.__name__: f
    for f in (
        gelu_chain,
        softmax_rows,
        layernorm_gelu,
        column_stats,
        gemm_small,
        gemm_bias_relu,
        batched_attention,
        conv_block,
        tiny_mlp_train,
        mlp_train,
        cnn_train,
        lstm_train,
        gpt_train,
        resnet18_infer,
        resnet18_cifar_train,
        nbody_grad,
    )
}
