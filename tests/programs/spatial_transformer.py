"""A spatial transformer: a small network predicts an affine map that straightens the input."""


def main(torch):
    nn, F, optim = torch.nn, torch.nn.functional, torch.optim

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 4, kernel_size=3)
            self.conv2 = nn.Conv2d(4, 6, kernel_size=3)
            self.conv2_drop = nn.Dropout2d(p=0.0)
            self.fc1, self.fc2 = nn.Linear(96, 12), nn.Linear(12, 3)
            self.localization = nn.Sequential(
                nn.Conv2d(1, 4, kernel_size=5),
                nn.MaxPool2d(2, stride=2),
                nn.ReLU(True),
                nn.Conv2d(4, 5, kernel_size=3),
                nn.MaxPool2d(2, stride=2),
                nn.ReLU(True),
            )
            self.fc_loc = nn.Sequential(nn.Linear(5, 8), nn.ReLU(True), nn.Linear(8, 3 * 2))

        def start(self):
            self.fc_loc[2].weight.data.zero_()
            self.fc_loc[2].bias.data.copy_(torch.tensor([0.91, 0.07, 0.03, -0.06, 0.93, 0.05]))

        def stn(self, x):
            xs = self.localization(x)
            xs = xs.view(-1, 5)
            theta = self.fc_loc(xs)
            theta = theta.view(-1, 2, 3)
            grid = F.affine_grid(theta, x.size(), align_corners=False)
            return F.grid_sample(x, grid, align_corners=False)

        def forward(self, x):
            x = self.stn(x)
            x = F.relu(F.max_pool2d(self.conv1(x), 2))
            x = F.relu(self.conv2_drop(self.conv2(x)))
            x = x.view(-1, 96)
            x = F.relu(self.fc1(x))
            x = F.dropout(x, 0.0, training=self.training)
            return F.log_softmax(self.fc2(x), dim=1)

    model = torch.fill(Net())
    model.start()
    optimizer = optim.SGD(model.parameters(), lr=0.005)
    x = torch.data(12, 1, 14, 14, seed=4)
    y = torch.labels(3, 12, seed=5)

    @torch.compile
    def train(data, target):
        optimizer.zero_grad()
        output = model(data)
        loss = F.nll_loss(output, target)
        loss.backward()
        optimizer.step()
        return loss

    losses = [train(x, y).item() for _ in range(12)]
    model.eval()
    with torch.no_grad():
        moved = model.stn(x)
    return [losses[0], losses[-1], moved.abs().mean().item(), model.fc_loc[2].bias.sum().item()]
