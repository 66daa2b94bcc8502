"""A convolutional network learns scanned handwritten digits; the whole training step is one graph.

Run: python examples/digits.py [--quick]. The data are scikit-learn's 1,797 images of 8 x 8 pixels.
"""

import argparse
import time

import numpy as np
from sklearn.datasets import load_digits
from tqdm import tqdm

import tracecc as tc
import tracecc.nn.functional as F
from tracecc import nn, optim
from tracecc.utils.data import DataLoader, TensorDataset


def load() -> tuple[TensorDataset, TensorDataset]:
    """The same 80 % for training and 20 % for testing at every run."""
    images, labels = load_digits(return_X_y=True)
    x = tc.from_numpy((images / 16.0 - 0.5).astype(np.float32).reshape(-1, 1, 8, 8))
    y = tc.from_numpy(labels.astype(np.int64))
    order = np.random.RandomState(0).permutation(len(x))
    cut = int(0.8 * len(x))
    train, test = (tc.from_numpy(part) for part in (order[:cut], order[cut:]))
    return TensorDataset(x[train], y[train]), TensorDataset(x[test], y[test])


def build():
    """A model, its optimiser and one step of its training."""
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(512, 10),
    )
    opt = optim.Adam(model.parameters(), lr=3e-3)

    def train_step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        return loss

    return model, opt, train_step


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="two epochs instead of fifteen")
    options.add_argument("--eager", action="store_true", help="without the compiler")
    options.add_argument("--dump", metavar="FILE", help="write the fused step there")
    args = options.parse_args()
    started = time.perf_counter()
    tc.manual_seed(0)
    train, test = load()
    loader = DataLoader(train, batch_size=64, shuffle=True)
    model, opt, train_step = build()
    epochs = 2 if args.quick else 15
    schedule = optim.lr_scheduler.OneCycleLR(opt, max_lr=6e-3, total_steps=epochs * len(loader))

    def predict(x):
        with tc.no_grad():
            return model(x).argmax(1)

    if not args.eager:
        train_step, predict = tc.compile(train_step), tc.compile(predict)
    first = None
    with tqdm(total=epochs * len(loader), unit="batch") as bar:
        for epoch in range(epochs):
            for x, y in loader:
                loss = train_step(x, y)
                schedule.step()
                first = first or time.perf_counter() - started
                bar.set_description(f"epoch {epoch + 1}/{epochs}, loss {loss.item():.3f}")
                bar.update()
    model.eval()
    images, labels = test.tensors
    correct = int((predict(images) == labels).sum().item())
    seconds = time.perf_counter() - started
    print(f"test accuracy  {100 * correct / len(labels):.1f} % ({correct} of {len(labels)})")
    print(f"seconds        {seconds:.1f} in all, {first:.1f} until the first step was done")
    if not args.eager:
        print(f"traces         {train_step.traces}: a full batch and the short last one")
        fused = str(train_step.ir("fused"))
        if args.dump:
            with open(args.dump, "w") as file:
                file.write(fused)
        print("the fused step begins:\n" + "\n".join(fused.splitlines()[:12]))


if __name__ == "__main__":
    main()
