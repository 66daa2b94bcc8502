"""A mixture density network: a network that outputs a mixture of Gaussians for each input."""

import math


def main(torch):
    nn = torch.nn

    class MDN(nn.Module):
        def __init__(self, n_hidden, n_gaussians):
            super().__init__()
            self.z_h = nn.Sequential(nn.Linear(1, n_hidden), nn.Tanh())
            self.z_pi = nn.Linear(n_hidden, n_gaussians)
            self.z_mu = nn.Linear(n_hidden, n_gaussians)
            self.z_sigma = nn.Linear(n_hidden, n_gaussians)

        def forward(self, x):
            z_h = self.z_h(x)
            pi = nn.functional.softmax(self.z_pi(z_h), -1)
            mu = self.z_mu(z_h)
            sigma = torch.exp(self.z_sigma(z_h))
            return pi, mu, sigma

    def gaussian_distribution(y, mu, sigma):
        result = (y.expand_as(mu) - mu) * torch.reciprocal(sigma)
        result = -0.5 * (result * result)
        return torch.exp(result) * torch.reciprocal(sigma) * (1.0 / math.sqrt(2 * math.pi))

    def mdn_loss_fn(pi, sigma, mu, y):
        result = gaussian_distribution(y, mu, sigma) * pi
        result = torch.sum(result, dim=1)
        return torch.mean(-torch.log(result))

    y_data = torch.linspace(-10, 10, 100).unsqueeze(1)
    x_data = 7 * torch.sin(0.75 * y_data) + 0.5 * y_data + torch.data(100, 1, seed=1)
    network = torch.fill(MDN(n_hidden=20, n_gaussians=5))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)

    @torch.compile
    def train(x, y):
        pi, mu, sigma = network(x)
        loss = mdn_loss_fn(pi, sigma, mu, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    losses = []
    for _ in range(30):
        losses.append(train(x_data, y_data).item())
        scheduler.step()
    with torch.no_grad():
        pi, mu, sigma = network(torch.linspace(-8, 8, 20).unsqueeze(-1))
        best = mu.gather(1, pi.argmax(1, keepdim=True)).squeeze(1)
        log_pi = torch.logsumexp(torch.log(pi) - sigma.log(), dim=1)
    return [losses[0], losses[-1], best.mean().item(), log_pi.sum().item()]
