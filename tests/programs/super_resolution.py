"""Super-resolution by sub-pixel convolution, with orthogonal initialisation and PSNR."""

import math


def main(torch):
    nn, F = torch.nn, torch.nn.functional

    class Net(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.relu = nn.ReLU()
            self.conv1 = nn.Conv2d(1, 8, (5, 5), (1, 1), (2, 2))
            self.conv2 = nn.Conv2d(8, factor**2, (3, 3), (1, 1), (1, 1))
            self.pixel_shuffle = nn.PixelShuffle(factor)
            nn.init.orthogonal_(self.conv1.weight, nn.init.calculate_gain("relu"))
            nn.init.orthogonal_(self.conv2.weight)

        def forward(self, x):
            return self.pixel_shuffle(self.conv2(self.relu(self.conv1(x))))

    model = torch.fill(Net(2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    criterion = nn.MSELoss()
    target = F.interpolate(torch.data(4, 1, 4, 4), scale_factor=4, mode="bicubic")
    input = F.interpolate(target, scale_factor=0.5, mode="bilinear", align_corners=False)

    @torch.compile
    def step(input, target):
        optimizer.zero_grad()
        loss = criterion(model(input), target)
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(input, target).item() for _ in range(20)]
    with torch.no_grad():
        psnr = 10 * math.log10(1 / criterion(model(input), target).item())
    return [losses[0], losses[-1], psnr]
