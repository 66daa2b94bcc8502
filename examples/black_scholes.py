"""Option prices and their sensitivities (the Greeks) by differentiation, against the closed form.

Black and Scholes, 1973. Run: python examples/black_scholes.py [--quick]
"""

import argparse
import math
import time

import tracecc as tc


def normal_cdf(x):
    return 0.5 * (1 + tc.erf(x / math.sqrt(2)))


def call_price(spot, strike, years, rate, volatility):
    """The price of a European call."""
    spread = volatility * tc.sqrt(years)
    d1 = (tc.log(spot / strike) + (rate + 0.5 * volatility * volatility) * years) / spread
    return spot * normal_cdf(d1) - strike * tc.exp(-rate * years) * normal_cdf(d1 - spread)


@tc.compile
def price_and_greeks(spot, strike, years, rate, volatility):
    """Price, delta, vega, theta and gamma: first derivatives and one second, in one graph."""
    price = call_price(spot, strike, years, rate, volatility)
    delta, vega, theta = tc.autograd.grad(price.sum(), (spot, volatility, years), create_graph=True)
    (gamma,) = tc.autograd.grad(delta.sum(), spot)
    return price.detach(), delta.detach(), vega.detach(), -theta.detach(), gamma


def closed_form(spot, strike, years, rate, volatility):
    """The textbook formulas."""
    root = tc.sqrt(years)
    d1 = (tc.log(spot / strike) + (rate + 0.5 * volatility**2) * years) / (volatility * root)
    d2 = d1 - volatility * root
    density = tc.exp(-0.5 * d1 * d1) / math.sqrt(2 * math.pi)
    discounted = strike * tc.exp(-rate * years)
    price = spot * normal_cdf(d1) - discounted * normal_cdf(d2)
    theta = -spot * density * volatility / (2 * root) - rate * discounted * normal_cdf(d2)
    return (
        price,
        normal_cdf(d1),
        spot * density * root,
        theta,
        density / (spot * volatility * root),
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="a thousand options, not a million")
    n = 1_000 if options.parse_args().quick else 1_000_000
    tc.manual_seed(0)

    def between(low, high):
        return tc.rand(n, dtype=tc.float64) * (high - low) + low

    spot, strike = between(80, 120), between(80, 120)
    years, rate, volatility = between(0.2, 2.0), between(0.0, 0.06), between(0.1, 0.5)
    for t in (spot, years, volatility):
        t.requires_grad_()
    inputs = (spot, strike, years, rate, volatility)
    price_and_greeks(*inputs)
    started = time.perf_counter()
    found = price_and_greeks(*inputs)
    seconds = time.perf_counter() - started
    with tc.no_grad():
        expected = closed_form(*inputs)
    print(f"{n:,} options with four Greeks in {seconds * 1e3:.1f} ms")
    for name, a, b in zip(
        ("price", "delta", "vega", "theta", "gamma"), found, expected, strict=True
    ):
        worst = (a - b).abs().max().item()
        print(f"{name:6s} of the first {a[0].item():10.5f}   largest error {worst:.1e}")
        assert worst < 1e-9


if __name__ == "__main__":
    main()
