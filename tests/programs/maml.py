"""Model-agnostic meta-learning: gradients through inner steps of gradient descent, vmapped."""

import math


def main(torch):
    nn, F = torch.nn, torch.nn.functional
    func = torch.func

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2, self.fc3 = nn.Linear(1, 12), nn.Linear(12, 12), nn.Linear(12, 1)

        def forward(self, x):
            x = torch.tanh(self.fc1(x))
            return self.fc3(torch.tanh(self.fc2(x)))

    net = torch.fill(Net())
    params = dict(net.named_parameters())
    alpha, tasks, shots = 0.1, 4, 6
    opt = torch.optim.Adam(params.values(), lr=1e-2)

    def loss_on(params, x, y):
        return F.mse_loss(func.functional_call(net, params, (x,)), y)

    def inner(x1, y1, x2, y2):
        fast = params
        for _ in range(2):
            grads = func.grad(loss_on)(fast, x1, y1)
            fast = {k: fast[k] - alpha * grads[k] for k in fast}
        return loss_on(fast, x2, y2)

    @torch.compile
    def meta_step(x1, y1, x2, y2):
        losses = func.vmap(inner)(x1, y1, x2, y2)
        opt.zero_grad()
        losses.mean().backward()
        opt.step()
        return losses.mean().detach()

    def sample(seed):
        amplitude = torch.data(tasks, 1, 1, seed=seed).abs() + 0.5
        phase = torch.data(tasks, 1, 1, seed=seed + 1) * math.pi / 4
        x = torch.data(tasks, 2 * shots, 1, seed=seed + 2)
        y = amplitude * torch.sin(x + phase)
        return x[:, :shots], y[:, :shots], x[:, shots:], y[:, shots:]

    losses = [meta_step(*sample(10 * i)).item() for i in range(8)]
    x1, y1, x2, y2 = sample(1000)
    with torch.no_grad():
        before = loss_on(params, x2[0], y2[0]).item()
    after = inner(x1[0], y1[0], x2[0], y2[0]).item()
    return [losses[0], losses[-1], before, after]
