"""Wrong calls raise PyTorch's exception types, and say what was given and what is expected.

`wrong_calls.txt` holds each call as a user writes it, then the exception and the whole message.
"""

from __future__ import annotations

import builtins
import copy
import io
import pathlib
import pickle
import warnings

import numpy
import pytest

import tracecc as tc

HERE = pathlib.Path(__file__)
LINES = HERE.with_name("wrong_calls.txt").read_text().splitlines()
CALLS = [line for line in LINES if line and line[0] not in " #"]
RAISED = dict(zip(CALLS, (line.strip() for line in LINES if line[:1] == " "), strict=True))


def names(torch):
    """What the calls refer to, made of one library."""

    def parameter(*shape):
        return torch.nn.Parameter(torch.zeros(*shape))

    def function(**methods):
        static = {name: staticmethod(method) for name, method in methods.items()}
        return type("Double", (torch.autograd.Function,), static)

    return {
        "torch": torch,
        "F": torch.nn.functional,
        "data": torch.utils.data,
        "scheduler": torch.optim.lr_scheduler,
        "x": torch.ones(2, requires_grad=True),
        "layer": torch.nn.Linear(3, 2),
        "parameter": parameter,
        "function": function,
        "sgd": lambda **options: torch.optim.SGD([parameter(2)], **options),
        "rows": [0.0, 1.0, 2.0, 3.0],
    } | {"copy": copy, "io": io, "numpy": numpy, "pickle": pickle}


def raised(call, torch):
    """The exception of one line of Python."""
    given = names(torch)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(call, given)
    except Exception as error:
        return error
    return None


def kind(name):
    """An exception class by the name that the table gives it."""
    return getattr(builtins, name, None) or getattr(pickle, name)


@pytest.mark.parametrize("call", CALLS)
def test_the_message_says_what_was_given_and_what_is_expected(call):
    error = raised(call, tc)
    name, _, message = RAISED[call].partition(": ")
    assert isinstance(error, kind(name)), repr(error)
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    assert " ".join(text.split()) == message
    assert message != ""


def test_the_exceptions_are_pytorchs():
    torch = pytest.importorskip("torch")
    for call, expected in RAISED.items():
        standard = {c.__name__ for c in type(raised(call, torch)).__mro__}
        assert expected.partition(":")[0] in standard, call


def test_the_table_covers_every_area():
    assert len(CALLS) > 400
    assert sum(line.startswith("#") for line in LINES) == 10


def test_a_wrong_call_names_the_users_line_when_compiled():
    """A third of the calls on tensors of zeros, inside of a compiled function."""
    wrong = [
        c for c in CALLS if c.startswith("torch.zeros(") and not ("tensor" in c or "[1, 2]" in c)
    ][::3]
    assert len(wrong) > 15
    for call in wrong:
        source = f"def step(torch):\n    first = torch.ones(1)\n    {call}\n"
        scope = {}
        exec(compile(source, "/home/user/step.py", "exec"), scope)
        compiled = tc.compile(lambda step=scope["step"]: step(tc))
        eager = raised(call, tc)
        with pytest.raises(type(eager)) as caught:
            compiled()
        assert str(caught.value) == f"step.py:3 step: {eager}"
