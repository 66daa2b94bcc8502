"""The same work as workloads.py in JAX: each builder returns (step, inputs), step already jitted.

Training steps carry (params, optimiser state) and donate them, JAX's own fastest idiom.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

R = np.random.RandomState


def _f(rs, *shape):
    return jnp.asarray(rs.standard_normal(shape).astype("float32"))


def gelu_chain(n=1 << 23):
    rs = R(0)

    def step(x, y):
        g = 0.5 * x * (1 + jnp.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))
        return g * jax.nn.sigmoid(y) + jnp.exp(-y * y) * x

    return jax.jit(step), (_f(rs, n), _f(rs, n))


def softmax_rows(b=16384, n=512):
    return jax.jit(lambda x: jax.nn.softmax(x, -1)), (_f(R(0), b, n),)


def _ln(x, w, b):
    m = x.mean(-1, keepdims=True)
    v = ((x - m) ** 2).mean(-1, keepdims=True)
    return (x - m) * lax.rsqrt(v + 1e-5) * w + b


def layernorm_gelu(b=8192, n=768):
    w, c = _f(R(1), n), _f(R(2), n)
    return jax.jit(lambda x: jax.nn.gelu(_ln(x, w, c), approximate=False) + x), (_f(R(0), b, n),)


def column_stats(b=65536, n=128):
    def step(x):
        d = x - x.mean(0)
        return d / jnp.sqrt((d * d).mean(0) + 1e-5)

    return jax.jit(step), (_f(R(0), b, n),)


def gemm_bias_relu(m=1024, k=1024, n=1024):
    return jax.jit(lambda a, b, c: jax.nn.relu(a @ b + c)), tuple(
        _f(R(i), *s) for i, s in enumerate([(m, k), (k, n), (n,)])
    )


def gemm_small():
    return gemm_bias_relu(128, 256, 96)


def _sdpa(q, k, v):
    s = (q @ jnp.swapaxes(k, -1, -2)) / np.sqrt(q.shape[-1])
    n = q.shape[-2]
    return jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((n, n), bool)), s, -jnp.inf), -1) @ v


def batched_attention(b=8, h=8, s=256, d=64):
    return jax.jit(_sdpa), tuple(_f(R(i), b, h, s, d) for i in range(3))


def _conv(x, w, stride=1, pad=0, b=None):
    y = lax.conv_general_dilated(
        x, w, (stride, stride), [(pad, pad)] * 2, dimension_numbers=("NCHW", "OIHW", "NCHW")
    )
    return y if b is None else y + b[None, :, None, None]


def _bn(x, p, train):
    if train:
        m, v = x.mean((0, 2, 3)), x.var((0, 2, 3))
        p = dict(p, m=0.9 * p["m"] + 0.1 * m, v=0.9 * p["v"] + 0.1 * v)
    else:
        m, v = p["m"], p["v"]
    s = p["g"] * lax.rsqrt(v + 1e-5)
    return x * s[:, None, None] + (p["b"] - m * s)[:, None, None], p


def _bnp(c):
    return {"g": jnp.ones(c), "b": jnp.zeros(c), "m": jnp.zeros(c), "v": jnp.ones(c)}


def conv_block(b=16, c=64, hw=56):
    w, p = _f(R(1), c, c, 3, 3) * 0.05, _bnp(c)
    return jax.jit(lambda x: jax.nn.relu(_bn(_conv(x, w, 1, 1), p, False)[0])), (
        _f(R(0), b, c, hw, hw),
    )


def _xent(z, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], 1).mean()


def _adam(p, g, s, lr=1e-3, b1=0.9, b2=0.999, eps=1e-8, wd=0.0):
    m, v, t = s
    t = t + 1
    m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, g)
    v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, g)
    c1, c2 = 1 - b1**t, 1 - b2**t
    p = jax.tree.map(
        lambda p, m, v: p * (1 - lr * wd) - lr * (m / c1) / (jnp.sqrt(v / c2) + eps), p, m, v
    )
    return p, (m, v, t)


def _adam0(p):
    def z():
        return jax.tree.map(jnp.zeros_like, p)

    return z(), z(), jnp.zeros(())


def _sgd(p, g, s, lr, mu, wd=0.0):
    g = jax.tree.map(lambda p, g: g + wd * p, p, g)
    s = jax.tree.map(lambda s, g: mu * s + g, s, g)
    return jax.tree.map(lambda p, s: p - lr * s, p, s), s


def _loop(loss, update, p, s, x, y):
    """A stateful closure over a jitted, donating step, so that one call is one training step."""

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train(p, s, x, y):
        l, g = jax.value_and_grad(loss)(p, x, y)
        p, s = update(p, g, s)
        return p, s, l

    st = [p, s]

    def step(x, y):
        st[0], st[1], l = train(st[0], st[1], x, y)
        return l, st[0]

    return step, (x, y)


def _mlp(dims, act, b):
    rs = R(0)
    p = [(_f(rs, i, o) / np.sqrt(i), jnp.zeros(o)) for i, o in itertools.pairwise(dims)]

    def loss(p, x, y):
        for w, c in p[:-1]:
            x = act(x @ w + c)
        return _xent(x @ p[-1][0] + p[-1][1], y)

    x, y = _f(rs, b, dims[0]), jnp.asarray(rs.randint(0, dims[-1], b))
    return _loop(loss, lambda p, g, s: _adam(p, g, s), p, _adam0(p), x, y)


def tiny_mlp_train():
    return _mlp((16, 64, 64, 3), jnp.tanh, 32)


def mlp_train():
    return _mlp((784, 512, 256, 10), jax.nn.relu, 128)


def _pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def cnn_train(b=64):
    rs = R(0)
    p = {
        "w1": _f(rs, 32, 1, 3, 3) * 0.3,
        "b1": jnp.zeros(32),
        "w2": _f(rs, 64, 32, 3, 3) * 0.06,
        "b2": jnp.zeros(64),
        "w3": _f(rs, 9216, 128) * 0.01,
        "b3": jnp.zeros(128),
        "w4": _f(rs, 128, 10) * 0.09,
        "b4": jnp.zeros(10),
    }

    def loss(p, x, y):
        x = jax.nn.relu(_conv(x, p["w1"], b=p["b1"]))
        x = _pool(jax.nn.relu(_conv(x, p["w2"], b=p["b2"])))
        x = jax.nn.relu(x.reshape(b, -1) @ p["w3"] + p["b3"])
        return _xent(x @ p["w4"] + p["b4"], y)

    z = jax.tree.map(jnp.zeros_like, p)
    return _loop(
        loss,
        lambda p, g, s: _sgd(p, g, s, 0.01, 0.9),
        p,
        z,
        _f(rs, b, 1, 28, 28),
        jnp.asarray(rs.randint(0, 10, b)),
    )


def _resnet(k, cifar):
    rs = R(0)

    def cw(o, i, s):
        return _f(rs, o, i, s, s) * np.sqrt(2 / (i * s * s))

    p, cfg, cin = {"stem": cw(64, 3, 3 if cifar else 7), "bn": _bnp(64), "blocks": []}, [], 64
    for cout, s in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        blk = {"c1": cw(cout, cin, 3), "b1": _bnp(cout), "c2": cw(cout, cout, 3), "b2": _bnp(cout)}
        if s != 1 or cin != cout:
            blk.update(d=cw(cout, cin, 1), bd=_bnp(cout))
        p["blocks"].append(blk)
        cfg.append(s)
        cin = cout
    p.update(w=_f(rs, 512, k) * 0.04, b=jnp.zeros(k))

    def net(p, x, train):
        q = dict(p, blocks=[])
        x = _conv(x, p["stem"], *((1, 1) if cifar else (2, 3)))
        x, q["bn"] = _bn(x, p["bn"], train)
        x = jax.nn.relu(x)
        if not cifar:
            x = lax.reduce_window(
                x, -jnp.inf, lax.max, (1, 1, 3, 3), (1, 1, 2, 2), [(0, 0), (0, 0), (1, 1), (1, 1)]
            )
        for blk, s in zip(p["blocks"], cfg, strict=False):
            nb, r = dict(blk), x
            if "d" in blk:
                r, nb["bd"] = _bn(_conv(x, blk["d"], s, 0), blk["bd"], train)
            y, nb["b1"] = _bn(_conv(x, blk["c1"], s, 1), blk["b1"], train)
            y, nb["b2"] = _bn(_conv(jax.nn.relu(y), blk["c2"], 1, 1), blk["b2"], train)
            x = jax.nn.relu(y + r)
            q["blocks"].append(nb)
        return x.mean((2, 3)) @ p["w"] + p["b"], q

    return p, net


def resnet18_infer(b=1, hw=224):
    p, net = _resnet(1000, False)
    f = jax.jit(lambda x: net(p, x, False)[0])
    return f, (_f(R(0), b, 3, hw, hw),)


def resnet18_cifar_train(b=16):
    p, net = _resnet(10, True)
    rs = R(0)

    def loss(p, x, y):
        z, q = net(p, x, True)
        return _xent(z, y), q

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train(p, s, x, y):
        (l, q), g = jax.value_and_grad(loss, has_aux=True)(p, x, y)
        n, s = _sgd(p, g, s, 0.1, 0.9, 5e-4)

        def pick(path, new, aux):
            return aux if path[-1].key in ("m", "v") else new

        return jax.tree_util.tree_map_with_path(pick, n, q), s, l

    st = [p, jax.tree.map(jnp.zeros_like, p)]

    def step(x, y):
        st[0], st[1], l = train(st[0], st[1], x, y)
        return l, st[0]

    return step, (_f(rs, b, 3, 32, 32), jnp.asarray(rs.randint(0, 10, b)))


def gpt_train(b=8, ctx=128, d=128, heads=4, layers=4, vocab=96):
    rs = R(0)

    def lin(i, o):
        return {"w": _f(rs, i, o) * 0.02, "b": jnp.zeros(o)}

    def ln():
        return {"w": jnp.ones(d), "b": jnp.zeros(d)}

    p = {
        "tok": _f(rs, vocab, d) * 0.02,
        "pos": _f(rs, ctx, d) * 0.02,
        "norm": ln(),
        "head": _f(rs, d, vocab) * 0.02,
        "blocks": [
            {
                "n1": ln(),
                "n2": ln(),
                "qkv": lin(d, 3 * d),
                "proj": lin(d, d),
                "fc": lin(d, 4 * d),
                "out": lin(4 * d, d),
            }
            for _ in range(layers)
        ],
    }

    def ap(l, x):
        return x @ l["w"] + l["b"]

    def loss(p, i, y):
        x = p["tok"][i] + p["pos"]
        for k in p["blocks"]:
            q = ap(k["qkv"], _ln(x, **k["n1"])).reshape(b, ctx, 3, heads, d // heads)
            q = q.transpose(2, 0, 3, 1, 4)
            a = _sdpa(q[0], q[1], q[2]).transpose(0, 2, 1, 3).reshape(b, ctx, d)
            x = x + ap(k["proj"], a)
            x = x + ap(k["out"], jax.nn.gelu(ap(k["fc"], _ln(x, **k["n2"])), approximate=False))
        return _xent((_ln(x, **p["norm"]) @ p["head"]).reshape(-1, vocab), y)

    return _loop(
        loss,
        lambda p, g, s: _adam(p, g, s, 3e-4, wd=0.01),
        p,
        _adam0(p),
        jnp.asarray(rs.randint(0, vocab, (b, ctx))),
        jnp.asarray(rs.randint(0, vocab, b * ctx)),
    )


def lstm_train(b=32, T=64, d=64, h=128, vocab=64):
    rs = R(0)
    p = {
        "e": _f(rs, vocab, d),
        "wi": _f(rs, d, 4 * h) * 0.08,
        "wh": _f(rs, h, 4 * h) * 0.08,
        "b": jnp.zeros(4 * h),
        "o": _f(rs, h, vocab) * 0.08,
        "c": jnp.zeros(vocab),
    }

    def loss(p, i, y):
        xs = (p["e"][i] @ p["wi"] + p["b"]).swapaxes(0, 1)

        def cell(hc, x):
            hh, c = hc
            i_, f, g, o = jnp.split(x + hh @ p["wh"], 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i_) * jnp.tanh(g)
            hh = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (hh, c), hh

        _, hs = lax.scan(cell, (jnp.zeros((b, h)), jnp.zeros((b, h))), xs)
        return _xent((hs.swapaxes(0, 1) @ p["o"] + p["c"]).reshape(-1, vocab), y)

    return _loop(
        loss,
        lambda p, g, s: _adam(p, g, s),
        p,
        _adam0(p),
        jnp.asarray(rs.randint(0, vocab, (b, T))),
        jnp.asarray(rs.randint(0, vocab, b * T)),
    )


def nbody_grad(n=512):
    def energy(x):
        d = x[None] - x[:, None]
        return (1.0 / jnp.sqrt((d * d).sum(-1) + 1e-2)).sum()

    return jax.jit(jax.value_and_grad(energy)), (_f(R(0), n, 3),)


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
