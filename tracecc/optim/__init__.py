"""Optimizers and learning rate schedules, with PyTorch's names, arguments and numbers."""

from tracecc.optim import lr_scheduler
from tracecc.optim.adam import Adam, Adamax, AdamW, NAdam, RAdam
from tracecc.optim.adaptive import Adadelta, Adagrad, RMSprop, Rprop
from tracecc.optim.optimizer import Optimizer
from tracecc.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "lr_scheduler",
]
