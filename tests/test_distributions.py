"""Distributions beside PyTorch's: densities, moments, entropies, divergences, draws."""

import numpy as np
import pytest

import tracecc as tc

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((2, 3)), RNG.standard_normal((2, 3))
POSITIVE, OTHER = np.exp(A), np.exp(B)
SHARE = 1 / (1 + POSITIVE)
FACTOR = np.tril(RNG.standard_normal((3, 3)), -1) + np.diag([1.0, 2.0, 0.5])

# (parameters, parameters of another, values)
CASES = {
    "Normal": ((A, POSITIVE), (B, OTHER), A + B),
    "LogNormal": ((A, POSITIVE), (B, OTHER), OTHER),
    "Laplace": ((A, POSITIVE), None, A + B),
    "Gumbel": ((A, POSITIVE), None, A + B),
    "Uniform": ((A, A + POSITIVE), (A - 1, A + POSITIVE), A + POSITIVE / 2),
    "Exponential": ((POSITIVE,), (OTHER,), OTHER),
    "Bernoulli": ((SHARE,), (SHARE[::-1].copy(),), (A > 0).astype("f8")),
    "Categorical": ((POSITIVE,), (OTHER,), np.array([2, 0])),
    "OneHotCategorical": ((POSITIVE,), (OTHER,), np.eye(3)[[2, 0]]),
    "Poisson": ((POSITIVE,), (OTHER,), np.array([[0.0, 1, 2], [3, 4, 5]])),
}


def close(a, b, tolerance=1e-6):
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), tolerance, tolerance)


def pair(name, given):
    return [
        getattr(t.distributions, name)(*[t.tensor(a, requires_grad=True) for a in given])
        for t in (tc, torch)
    ]


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_pytorchs(name):
    given, other, values = CASES[name]
    mine, theirs = pair(name, given)
    assert mine.batch_shape == theirs.batch_shape
    assert mine.event_shape == theirs.event_shape
    assert mine.has_rsample is theirs.has_rsample
    close(mine.log_prob(tc.tensor(values)), theirs.log_prob(torch.tensor(values)))
    for what in ("entropy", "perplexity"):
        if name != "Poisson":
            close(getattr(mine, what)(), getattr(theirs, what)())
    if name != "Categorical":
        for what in ("mean", "variance", "stddev"):
            close(getattr(mine, what), getattr(theirs, what))
    if hasattr(mine, "cdf"):
        close(mine.cdf(tc.tensor(values)), theirs.cdf(torch.tensor(values)))
    if other is not None:
        others = pair(name, other)
        expected = torch.distributions.kl_divergence(theirs, others[1])
        close(tc.distributions.kl_divergence(mine, others[0]), expected)


@pytest.mark.parametrize("name", CASES)
def test_draws_have_the_moments_of_the_distribution(name):
    tc.manual_seed(1)
    mine, theirs = pair(name, CASES[name][0])
    draws = mine.sample((20000,))
    assert draws.shape == theirs.sample((20000,)).shape
    assert not draws.requires_grad
    if name == "Categorical":
        draws, mean = tc.nn.functional.one_hot(draws, 3).double(), mine.probs
        spread = (mean * (1 - mean)).sqrt()
    elif name == "LogNormal":
        draws, mean, spread = draws.log(), mine.loc, mine.scale
    else:
        mean, spread = mine.mean, mine.stddev
    error = (draws.mean(0) - mean).abs() / (spread / 20000**0.5)
    assert error.max().item() < 5
    np.testing.assert_allclose(draws.std(0).numpy(), spread.detach().numpy(), 0.08)


def test_gradients_flow_through_rsample():
    loc, scale = tc.tensor(A, requires_grad=True), tc.tensor(POSITIVE, requires_grad=True)
    draws = tc.distributions.Normal(loc, scale).rsample((5,))
    draws.sum().backward()
    close(loc.grad, tc.full((2, 3), 5.0))
    close(scale.grad, ((draws - loc) / scale).sum(0))


@pytest.mark.parametrize("how", ["covariance_matrix", "precision_matrix", "scale_tril"])
def test_multivariate_normal(how):
    matrix = FACTOR if how == "scale_tril" else FACTOR @ FACTOR.T

    def numbers(t):
        d, eye = t.distributions, t.eye(3, dtype=t.float64)
        p = d.MultivariateNormal(t.tensor(A), **{how: t.tensor(matrix)})
        q = d.MultivariateNormal(t.tensor(B), eye)
        kl = d.kl_divergence(p, q)
        return [p.log_prob(t.tensor(B)), p.entropy(), p.covariance_matrix, p.variance, kl]

    for a, b in zip(numbers(tc), numbers(torch), strict=True):
        close(a, b)
    tc.manual_seed(0)
    p = tc.distributions.MultivariateNormal(tc.zeros(3).double(), **{how: tc.tensor(matrix)})
    drawn = np.cov(p.sample((20000,)).numpy().T)
    np.testing.assert_allclose(drawn, p.covariance_matrix.numpy(), atol=0.15)


def test_independent_dimensions_add_up():
    def numbers(t):
        d = t.distributions
        p = d.Independent(d.Normal(t.tensor(A), t.tensor(POSITIVE)), 1)
        q = d.Independent(d.Normal(t.tensor(B), t.tensor(OTHER)), 1)
        assert tuple(p.event_shape) == (3,)
        return [p.log_prob(t.tensor(B)), p.entropy(), d.kl_divergence(p, q)]

    for a, b in zip(numbers(tc), numbers(torch), strict=True):
        close(a, b)


def test_a_policy_gradient_step_is_compiled():
    logits = tc.tensor(A.astype("f4"), requires_grad=True)

    def loss(actions, rewards):
        policy = tc.distributions.Categorical(logits=logits)
        return -(policy.log_prob(actions) * rewards).sum() - 0.1 * policy.entropy().sum()

    actions, rewards = tc.tensor([2, 0]), tc.tensor([1.0, -2.0])
    loss(actions, rewards).backward()
    expected, logits.grad = logits.grad, None
    tc.compile(loss)(actions, rewards).backward()
    close(logits.grad, expected)


def test_wrong_parameters_are_refused_by_name():
    d = tc.distributions
    with pytest.raises(ValueError, match="Expected parameter scale of distribution Normal"):
        d.Normal(0.0, -1.0)
    with pytest.raises(ValueError, match="Expected parameter probs of distribution Bernoulli"):
        d.Bernoulli(tc.tensor([0.5, 2.0]))
    with pytest.raises(ValueError, match="either `probs` or `logits`"):
        d.Categorical()
    with pytest.raises(NotImplementedError, match="from Normal to Uniform"):
        d.kl_divergence(d.Normal(0.0, 1.0), d.Uniform(0.0, 1.0))
    with pytest.raises(NotImplementedError, match="no rsample"):
        d.Categorical(tc.ones(3)).rsample()
