"""A Fourier neural operator: learned products with complex weights in the frequency domain."""


def main(torch):
    nn, F = torch.nn, torch.nn.functional

    class SpectralConv2d(nn.Module):
        def __init__(self, inside, outside, modes):
            super().__init__()
            self.outside, self.modes = outside, modes
            scale = 1 / (inside * outside)
            shape = (2, inside, outside, modes, modes)
            parts = torch.complex(torch.data(*shape, seed=1), torch.data(*shape, seed=2))
            self.low = nn.Parameter(scale * parts[0])
            self.high = nn.Parameter(scale * parts[1])

        def forward(self, x):
            n = self.modes
            spectrum = torch.fft.rfft2(x)
            size = x.shape[0], self.outside, x.size(-2), x.size(-1) // 2 + 1
            out = torch.zeros(*size, dtype=torch.cfloat, device=x.device)
            out[:, :, :n, :n] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, :n, :n], self.low)
            out[:, :, -n:, :n] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, -n:, :n], self.high)
            return torch.fft.irfft2(out, s=(x.size(-2), x.size(-1)))

    class Operator(nn.Module):
        def __init__(self, width=6):
            super().__init__()
            self.lift = torch.fill(nn.Conv2d(1, width, 1))
            self.spectral = SpectralConv2d(width, width, 3)
            self.local = torch.fill(nn.Conv2d(width, width, 1))
            self.project = torch.fill(nn.Conv2d(width, 1, 1))

        def forward(self, x):
            x = self.lift(x)
            return self.project(F.gelu(self.spectral(x) + self.local(x)))

    model = Operator()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    input = torch.data(4, 1, 12, 12)
    target = torch.fft.irfft2(torch.fft.rfft2(input)[..., :3], s=(12, 12))

    @torch.compile
    def step(input, target):
        optimizer.zero_grad()
        loss = F.mse_loss(model(input), target)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    losses = [step(input, target).item() for _ in range(20)]
    return [losses[0], losses[-1], model.spectral.low.abs().sum().item()]
