"""A small U-Net with skip connections and a Dice loss."""


def main(torch):
    nn, F = torch.nn, torch.nn.functional

    class Double(nn.Sequential):
        def __init__(self, inputs, outputs):
            super().__init__(
                nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
                nn.Conv2d(outputs, outputs, 3, padding=1),
                nn.ReLU(inplace=True),
            )

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.inc, self.down = Double(1, 4), Double(4, 8)
            self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
            self.conv, self.outc = Double(8, 4), nn.Conv2d(4, 1, 1)

        def forward(self, x):
            x1 = self.inc(x)
            x2 = self.up(self.down(F.max_pool2d(x1, 2)))
            dy, dx = x1.size()[2] - x2.size()[2], x1.size()[3] - x2.size()[3]
            x2 = F.pad(x2, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
            return self.outc(self.conv(torch.cat([x1, x2], dim=1)))

    def dice_loss(logits, target):
        p = torch.sigmoid(logits)
        both = (p * target).sum((1, 2, 3))
        return 1 - ((2 * both + 1) / (p.sum((1, 2, 3)) + target.sum((1, 2, 3)) + 1)).mean()

    net = torch.fill(UNet())
    optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-8)
    bce = nn.BCEWithLogitsLoss()
    image = torch.data(3, 1, 9, 9)
    mask = (F.avg_pool2d(image, 3, stride=1, padding=1) > 0).float()

    @torch.compile
    def step(image, mask):
        optimizer.zero_grad()
        logits = net(image)
        loss = bce(logits, mask) + dice_loss(logits, mask)
        loss.backward()
        nn.utils.clip_grad_value_(net.parameters(), 0.5)
        optimizer.step()
        return loss

    losses = [step(image, mask).item() for _ in range(12)]
    net.eval()
    with torch.no_grad():
        share = (net(image) > 0).float().mean().item()
    return [losses[0], losses[-1], share]
