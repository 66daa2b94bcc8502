"""A normalizing flow of affine coupling layers, trained by exact likelihood, and inverted."""


def main(torch):
    nn = torch.nn
    Independent, Normal = torch.distributions.Independent, torch.distributions.Normal

    class CouplingLayer(nn.Module):
        def __init__(self, mask, hidden=16):
            super().__init__()
            self.register_buffer("mask", mask)
            self.scale_net = nn.Sequential(
                nn.Linear(2, hidden), nn.LeakyReLU(), nn.Linear(hidden, 2), nn.Tanh()
            )
            self.translate_net = nn.Sequential(
                nn.Linear(2, hidden), nn.LeakyReLU(), nn.Linear(hidden, 2)
            )

        def forward(self, x):
            fixed = x * self.mask
            s = self.scale_net(fixed) * (1 - self.mask)
            t = self.translate_net(fixed) * (1 - self.mask)
            return fixed + (1 - self.mask) * (x * s.exp() + t), s.sum(-1)

        def inverse(self, z):
            fixed = z * self.mask
            s = self.scale_net(fixed) * (1 - self.mask)
            t = self.translate_net(fixed) * (1 - self.mask)
            return fixed + (1 - self.mask) * (z - t) * (-s).exp()

    class RealNVP(nn.Module):
        def __init__(self, layers=4):
            super().__init__()
            masks = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]
            self.layers = nn.ModuleList([CouplingLayer(masks[i % 2]) for i in range(layers)])
            self.register_buffer("loc", torch.zeros(2))
            self.register_buffer("scale", torch.ones(2))

        @property
        def prior(self):
            return Independent(Normal(self.loc, self.scale), 1)

        def log_prob(self, x):
            log_det = 0.0
            for layer in self.layers:
                x, d = layer(x)
                log_det = log_det + d
            return self.prior.log_prob(x) + log_det

        def decode(self, z):
            for layer in reversed(self.layers):
                z = layer.inverse(z)
            return z

    def moons(seed, n=32):
        angle = torch.data(n, seed=seed).sigmoid() * torch.pi
        up = torch.labels(2, n, seed=seed).float()
        side = 2 * up - 1
        x = torch.stack([side * angle.cos() + 1 - up, side * angle.sin() + 0.25 * (1 - up)], 1)
        return x + 0.05 * torch.data(n, 2, seed=100 + seed)

    flow = torch.fill(RealNVP())
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)

    @torch.compile
    def step(x):
        optimizer.zero_grad()
        loss = -flow.log_prob(x).mean()
        loss.backward()
        optimizer.step()
        return loss

    losses = []
    for i in range(20):
        losses.append(step(moons(i)).item())
        scheduler.step()
    with torch.no_grad():
        x = moons(50)
        z = x
        for layer in flow.layers:
            z, _ = layer(z)
        back = flow.decode(z)
        drawn = flow.decode(torch.data(64, 2, seed=9))
        test = -flow.log_prob(x).mean()
    assert torch.allclose(back, x, atol=1e-4)
    return [losses[0], losses[-1], test.item(), *drawn.mean(0).tolist(), *drawn.std(0).tolist()]
