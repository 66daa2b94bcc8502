"""A temporal convolutional network: dilated causal convolutions, weights normalised; adding."""


def main(torch):
    nn, F = torch.nn, torch.nn.functional
    weight_norm = nn.utils.parametrizations.weight_norm

    class Chomp1d(nn.Module):
        def __init__(self, chomp_size):
            super().__init__()
            self.chomp_size = chomp_size

        def forward(self, x):
            return x[:, :, : -self.chomp_size].contiguous()

    class TemporalBlock(nn.Module):
        def __init__(self, n_inputs, n_outputs, kernel_size, stride, dilation, padding, dropout):
            super().__init__()
            self.conv1 = weight_norm(
                nn.Conv1d(
                    n_inputs,
                    n_outputs,
                    kernel_size,
                    stride=stride,
                    padding=padding,
                    dilation=dilation,
                )
            )
            self.conv2 = weight_norm(
                nn.Conv1d(n_outputs, n_outputs, kernel_size, padding=padding, dilation=dilation)
            )
            self.net = nn.Sequential(
                self.conv1,
                Chomp1d(padding),
                nn.ReLU(),
                nn.Dropout(dropout),
                self.conv2,
                Chomp1d(padding),
                nn.ReLU(),
                nn.Dropout(dropout),
            )
            self.downsample = nn.Conv1d(n_inputs, n_outputs, 1) if n_inputs != n_outputs else None
            self.relu = nn.ReLU()

        def forward(self, x):
            out = self.net(x)
            res = x if self.downsample is None else self.downsample(x)
            return self.relu(out + res)

    class TCN(nn.Module):
        def __init__(self, input_size, output_size, num_channels, kernel_size=3, dropout=0.0):
            super().__init__()
            layers = []
            for i, out_channels in enumerate(num_channels):
                dilation = 2**i
                in_channels = input_size if i == 0 else num_channels[i - 1]
                layers += [
                    TemporalBlock(
                        in_channels,
                        out_channels,
                        kernel_size,
                        stride=1,
                        dilation=dilation,
                        padding=(kernel_size - 1) * dilation,
                        dropout=dropout,
                    )
                ]
            self.network = nn.Sequential(*layers)
            self.linear = nn.Linear(num_channels[-1], output_size)

        def forward(self, x):
            return self.linear(self.network(x)[:, :, -1])

    def batch(seed, n=16, length=24):
        numbers = torch.data(n, length, seed=seed)
        marks = torch.zeros(n, length)
        for i, (a, b) in enumerate(torch.labels(length // 2, n, 2, seed=seed).tolist()):
            marks[i, a] = 1
            marks[i, length // 2 + b] = 1
        return torch.stack([numbers, marks], 1), (numbers * marks).sum(1, keepdim=True)

    model = torch.fill(TCN(2, 1, [8] * 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)

    @torch.compile
    def train(x, y):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        return loss

    losses = [train(*batch(seed)).item() for seed in range(12)]
    model.eval()
    with torch.no_grad():
        x, y = batch(77)
        test = F.mse_loss(model(x), y).item()
    x = x.clone().requires_grad_()
    model(x[:, :, :-1]).sum().backward()
    norms = [
        block.conv1.parametrizations.weight.original0.flatten()[0].item() for block in model.network
    ]
    return [losses[0], losses[-1], test, x.grad[:, :, -1].abs().sum().item(), *norms]
