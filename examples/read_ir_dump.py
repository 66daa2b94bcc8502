"""How to read, edit and run what the compiler made of a function.

Run: python examples/read_ir_dump.py [--quick]
"""

import argparse

import tracecc as tc
from tracecc import nn


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="accepted; this is quick anyway")
    options.parse_args()
    tc.manual_seed(0)
    layer = nn.Linear(4, 3).requires_grad_(False)

    @tc.compile
    def score(x):
        hidden = nn.functional.gelu(layer(x))
        return (hidden * 2.0).sum(1)

    x = tc.randn(5, 4)
    result = score(x)

    print("As traced: one line per operation, with the line of the user's code.")
    print("`state` is memory that the function captured: here the layer's parameters.\n")
    print(score.ir())
    print("\nAfter simplification, with composites opened and numbers folded:\n")
    print(score.ir("simplified"))
    print("\nAfter fusion: each `kernel` becomes one loop, and says why it was fused:\n")
    print(score.ir("fused"))

    # A dump is text that parses back to the same graph, so it can be edited and run.
    text = str(score.ir())
    assert str(tc.ir.parse(text)) == text
    edited = tc.compile(tc.ir.parse(text.replace(", 2.0)", ", 20.0)")))
    tenfold = edited(x, state=[layer.weight, layer.bias])
    print("\nresult          ", result)
    print("edited 2 to 20  ", tenfold)
    assert tc.allclose(tenfold, 10 * result, rtol=1e-4)


if __name__ == "__main__":
    main()
