"""A network that satisfies Burgers' equation: derivatives in space and time inside of the loss."""

import itertools
import math


def main(torch):
    nn = torch.nn

    class PINN(nn.Module):
        def __init__(self, layers=(2, 16, 16, 1)):
            super().__init__()
            self.linears = nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(layers)])
            self.activation = nn.Tanh()

        def forward(self, x, t):
            z = torch.cat([x, t], dim=1)
            for linear in self.linears[:-1]:
                z = self.activation(linear(z))
            return self.linears[-1](z)

    model = torch.fill(PINN())
    nu = nn.Parameter(torch.tensor(0.02))  # found together with the solution

    def derivative(y, x):
        return torch.autograd.grad(
            y, x, grad_outputs=torch.ones_like(y), retain_graph=True, create_graph=True
        )[0]

    def residual(x, t):
        u = model(x, t)
        u_x, u_t = derivative(u, x), derivative(u, t)
        return u_t + u * u_x - nu * derivative(u_x, x)

    x = torch.linspace(-1, 1, 9)
    t = torch.linspace(0, 1, 5)
    X, T = (g.reshape(-1, 1).requires_grad_(True) for g in torch.meshgrid(x, t, indexing="ij"))
    x0 = x.unsqueeze(1)
    u0 = -torch.sin(math.pi * x0)
    edge_t = t.repeat(2).unsqueeze(1)
    edge_x = torch.cat([-torch.ones(5, 1), torch.ones(5, 1)])
    params = [*model.parameters(), nu]
    adam = torch.optim.Adam(params, lr=1e-2)
    criterion = nn.MSELoss()

    def loss_fn():
        start = criterion(model(x0, torch.zeros_like(x0)), u0)
        edges = model(edge_x, edge_t).square().mean()
        inside = residual(X, T)
        return start + edges + criterion(inside, torch.zeros_like(inside))

    @torch.compile
    def step():
        adam.zero_grad()
        loss = loss_fn()
        loss.backward()
        adam.step()
        return loss

    losses = [step().item() for _ in range(30)]
    lbfgs = torch.optim.LBFGS(params, lr=0.5, max_iter=4, line_search_fn="strong_wolfe")

    @torch.compile
    def refine():
        def closure():
            lbfgs.zero_grad()
            loss = loss_fn()
            loss.backward()
            return loss

        return lbfgs.step(closure)

    losses += [refine().item() for _ in range(2)]
    x1 = torch.tensor([[0.3]], requires_grad=True)
    slope = derivative(model(x1, torch.tensor([[0.5]])), x1)
    return [losses[0], losses[29], losses[-1], nu.item(), slope.item()]
