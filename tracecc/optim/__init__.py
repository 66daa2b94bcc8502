"""Optimizers and learning rate schedules, with PyTorch's names, arguments and numbers."""

from typing import Any

from tracecc.lacking import unknown
from tracecc.optim import lr_scheduler, swa_utils
from tracecc.optim.adam import Adam, Adamax, AdamW, NAdam, RAdam, SparseAdam
from tracecc.optim.adaptive import Adadelta, Adagrad, RMSprop, Rprop
from tracecc.optim.lbfgs import LBFGS
from tracecc.optim.matrix import ASGD, Adafactor, Muon
from tracecc.optim.optimizer import Optimizer
from tracecc.optim.sgd import SGD

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
    "lr_scheduler",
    "swa_utils",
]


def __getattr__(name: str) -> Any:
    raise unknown(__name__, name)
