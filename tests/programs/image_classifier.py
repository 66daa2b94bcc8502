"""A convolutional classifier trained on batches from a DataLoader, then evaluated."""


def main(torch):
    nn, F = torch.nn, torch.nn.functional

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 8, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(8)
            self.conv2 = nn.Conv2d(8, 12, 3)
            self.fc1 = nn.Linear(12 * 3 * 3, 16)
            self.fc2 = nn.Linear(16, 4)

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.norm(self.conv1(x))), 2)
            x = F.relu(self.conv2(x))
            x = torch.flatten(F.adaptive_avg_pool2d(x, 3), 1)
            return F.log_softmax(self.fc2(F.relu(self.fc1(x))), dim=1)

    images, labels = torch.data(48, 1, 12, 12), torch.labels(4, 48)
    images = images + labels.view(-1, 1, 1, 1).float() * 0.5
    dataset = torch.utils.data.TensorDataset(images, labels)
    loader = torch.utils.data.DataLoader(dataset, batch_size=16)
    model = torch.fill(Net())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    @torch.compile
    def train(x, y):
        optimizer.zero_grad()
        loss = F.nll_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    model.train()
    losses = [train(x, y).item() for _ in range(4) for x, y in loader]
    model.eval()
    correct, total = 0, 0.0
    with torch.no_grad():
        for x, y in loader:
            output = model(x)
            total += F.nll_loss(output, y, reduction="sum").item()
            pred = output.argmax(dim=1, keepdim=True)
            correct += pred.eq(y.view_as(pred)).sum()
    return [losses[0], losses[-1], total / len(dataset), float(correct.item())]
