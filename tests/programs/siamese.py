"""A siamese network with shared weights and a contrastive loss."""


def main(torch):
    nn, F = torch.nn, torch.nn.functional

    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.cnn = nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.GroupNorm(2, 4)
            )
            self.fc = nn.Sequential(nn.Linear(4 * 3 * 3, 8), nn.Sigmoid(), nn.Linear(8, 2))

        def once(self, x):
            x = self.cnn(x)
            return self.fc(x.view(x.size()[0], -1))

        def forward(self, a, b):
            return self.once(a), self.once(b)

    def contrastive(a, b, label, margin=2.0):
        distance = F.pairwise_distance(a, b, keepdim=True)
        return torch.mean(
            (1 - label) * torch.pow(distance, 2)
            + label * torch.pow(torch.clamp(margin - distance, min=0.0), 2)
        )

    net = torch.fill(Siamese())
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    a, b = torch.data(10, 1, 8, 8), torch.data(10, 1, 8, 8, seed=1)
    label = torch.labels(2, 10, 1).float()
    b = torch.where(label.view(-1, 1, 1, 1) == 0, a + 0.1 * b, b)

    @torch.compile
    def step(a, b, label):
        optimizer.zero_grad()
        loss = contrastive(*net(a, b), label)
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(a, b, label).item() for _ in range(20)]
    with torch.no_grad():
        distance = F.pairwise_distance(*net(a, b))
    return [losses[0], losses[-1], distance[label.squeeze(1) == 1].mean().item()]
