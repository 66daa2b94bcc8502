"""Parametrizations: symmetric, orthogonal and positive weights, cached, chained and removed."""


def main(torch):
    nn = torch.nn
    parametrize = nn.utils.parametrize

    class Symmetric(nn.Module):
        def forward(self, X):
            return X.triu() + X.triu(1).transpose(-1, -2)

        def right_inverse(self, A):
            return A.triu()

    class Skew(nn.Module):
        def forward(self, X):
            A = X.triu(1)
            return A - A.transpose(-1, -2)

    class CayleyMap(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.register_buffer("Id", torch.eye(n))

        def forward(self, X):
            return torch.linalg.solve(self.Id - X, self.Id + X)

    class MatrixExponential(nn.Module):
        def forward(self, X):
            return torch.matrix_exp(X)

    class RankOne(nn.Module):
        def forward(self, x, y):
            return x.unsqueeze(-1) @ y.unsqueeze(-2)

        def right_inverse(self, Z):
            U, S, Vh = torch.linalg.svd(Z, full_matrices=False)
            s0_sqrt = S[0].sqrt().unsqueeze(-1)
            return U[..., :, 0] * s0_sqrt, Vh[..., 0, :] * s0_sqrt

    symmetric = torch.fill(nn.Linear(4, 4))
    parametrize.register_parametrization(symmetric, "weight", Symmetric())
    orthogonal = torch.fill(nn.Linear(4, 4))
    parametrize.register_parametrization(orthogonal, "weight", Skew())
    parametrize.register_parametrization(orthogonal, "weight", CayleyMap(4))
    definite = torch.fill(nn.Linear(4, 4))
    parametrize.register_parametrization(definite, "weight", Symmetric())
    parametrize.register_parametrization(definite, "weight", MatrixExponential())
    low_rank = torch.fill(nn.Linear(4, 4))
    parametrize.register_parametrization(low_rank, "weight", RankOne())
    spectral = nn.utils.parametrizations.orthogonal(torch.fill(nn.Linear(4, 4)))
    model = nn.Sequential(symmetric, nn.Tanh(), orthogonal, definite, low_rank)

    Q, W = orthogonal.weight, spectral.weight
    assert torch.allclose(Q.T @ Q, torch.eye(4), atol=1e-5)
    assert torch.allclose(W.T @ W, torch.eye(4), atol=1e-5)
    assert torch.linalg.matrix_rank(low_rank.weight).item() == 1
    assert parametrize.is_parametrized(symmetric, "weight")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.5)

    @torch.compile
    def step(x, y):
        optimizer.zero_grad()
        with parametrize.cached():
            loss = (model(x) - y).square().mean() + 1e-3 * low_rank.weight.square().sum()
        loss.backward()
        optimizer.step()
        return loss

    losses = [
        step(torch.data(8, 4, seed=i), torch.data(8, 4, seed=i).flip(1)).item() for i in range(8)
    ]
    with torch.no_grad():
        symmetric.weight = symmetric.weight + torch.eye(4)
    before = symmetric.weight.sum().item()
    parametrize.remove_parametrizations(symmetric, "weight")
    assert not parametrize.is_parametrized(symmetric)
    assert torch.allclose(symmetric.weight, symmetric.weight.T)
    names = sorted(name for name, _ in model.named_parameters())
    return [
        *losses,
        before,
        symmetric.weight.sum().item(),
        orthogonal.weight.det().item(),
        definite.weight.diagonal().min().item(),
        float(len(names)),
    ]
