"""A variational autoencoder with the reparametrisation trick."""


def main(torch):
    nn, F = torch.nn, torch.nn.functional

    class VAE(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(20, 16)
            self.fc21, self.fc22 = nn.Linear(16, 3), nn.Linear(16, 3)
            self.fc3, self.fc4 = nn.Linear(3, 16), nn.Linear(16, 20)

        def encode(self, x):
            h = F.relu(self.fc1(x))
            return self.fc21(h), self.fc22(h)

        def decode(self, z):
            return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

        def forward(self, x, eps):
            mu, logvar = self.encode(x.view(-1, 20))
            return self.decode(mu + eps * torch.exp(0.5 * logvar)), mu, logvar

    def loss_function(recon, x, mu, logvar):
        bce = F.binary_cross_entropy(recon, x.view(-1, 20), reduction="sum")
        return bce - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())

    model = torch.fill(VAE())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    @torch.compile
    def step(x, eps):
        optimizer.zero_grad()
        loss = loss_function(model(x, eps)[0], x, *model(x, eps)[1:])
        loss.backward()
        optimizer.step()
        return loss

    x = (torch.data(16, 4, 5) > 0.3).float()
    losses = [step(x, torch.data(16, 3, seed=i + 1)).item() for i in range(25)]
    with torch.no_grad():
        sample = model.decode(torch.data(4, 3, seed=99))
    return [losses[0], losses[-1], sample.mean().item(), sample.std().item()]
