"""A training loop of one's own, with a learning rate that changes at every step and no retrace.

Run: python examples/training_loop_lr.py [--quick]
"""

import argparse
import math

import tracecc as tc
from tracecc import nn, optim


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="60 steps instead of 600")
    steps = 60 if options.parse_args().quick else 600
    tc.manual_seed(0)
    x = tc.linspace(-3.0, 3.0, 256).unsqueeze(1)
    y = tc.sin(2 * x) + 0.05 * tc.randn(256, 1)
    model = nn.Sequential(
        nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
    )
    opt = optim.AdamW(model.parameters(), lr=1e-2)

    @tc.compile
    def train_step(x, y):
        opt.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        opt.step()
        return loss

    first = None
    for step in range(steps):
        # Warm up over the first tenth, then fall along a cosine.
        warm = min(1.0, (step + 1) / (steps / 10))
        opt.param_groups[0]["lr"] = 1e-2 * warm * (1 + math.cos(math.pi * step / steps)) / 2
        loss = train_step(x, y).item()
        first = loss if first is None else first
        if step % (steps // 6) == 0 or step == steps - 1:
            print(f"step {step:4d}  lr {opt.param_groups[0]['lr']:.5f}  loss {loss:.4f}")
    print(f"loss fell from {first:.3f} to {loss:.4f}")
    print(f"{steps} learning rates, {train_step.traces} trace")


if __name__ == "__main__":
    main()
