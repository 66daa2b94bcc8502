"""A signal found from the magnitudes of its short-time spectrum alone, and rotary embeddings."""


def rotate(torch, x):
    """Pairs of features turned by angles that grow with the position."""
    time, width = x.shape[-2:]
    rate = 1.0 / 100.0 ** (torch.arange(0, width, 2).float() / width)
    angles = torch.outer(torch.arange(time).float(), rate)
    turn = torch.polar(torch.ones_like(angles), angles)
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turn).flatten(-2).type_as(x)


def main(torch):
    window = torch.hann_window(16)

    def spectrum(x):
        return torch.stft(x, 16, 4, window=window, return_complex=True)

    true = torch.sin(torch.arange(96).float() * 0.4) + 0.3 * torch.data(96)
    magnitudes = spectrum(true).abs()
    guess = torch.polar(magnitudes, 3.0 * torch.data(*magnitudes.shape, seed=1))
    x = torch.istft(guess, 16, 4, window=window, length=96).clone().requires_grad_()
    optimizer = torch.optim.SGD([x], lr=0.05, momentum=0.8)

    @torch.compile
    def step():
        optimizer.zero_grad()
        loss = ((spectrum(x).abs() - magnitudes) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step().item() for _ in range(25)]
    q, k = rotate(torch, torch.data(2, 5, 8)), rotate(torch, torch.data(2, 5, 8, seed=3))
    scores = torch.softmax(q @ k.transpose(-1, -2), -1)
    return [losses[0], losses[-1], scores.square().sum().item()]
