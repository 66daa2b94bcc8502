"""Learning sine waves with LSTM cells by LBFGS, then predicting beyond the data."""

import math


def main(torch):
    nn = torch.nn

    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm1, self.lstm2 = nn.LSTMCell(1, 6), nn.LSTMCell(6, 6)
            self.linear = nn.Linear(6, 1)

        def forward(self, input, future=0):
            outputs = []
            h_t = torch.zeros(input.size(0), 6, dtype=torch.double)
            c_t, h_t2, c_t2 = h_t, h_t, h_t
            for input_t in input.split(1, dim=1):
                h_t, c_t = self.lstm1(input_t, (h_t, c_t))
                h_t2, c_t2 = self.lstm2(h_t, (h_t2, c_t2))
                output = self.linear(h_t2)
                outputs += [output]
            for _ in range(future):
                h_t, c_t = self.lstm1(output, (h_t, c_t))
                h_t2, c_t2 = self.lstm2(h_t, (h_t2, c_t2))
                output = self.linear(h_t2)
                outputs += [output]
            return torch.cat(outputs, dim=1)

    seq = torch.fill(Sequence()).double()
    phase = torch.arange(4, dtype=torch.double).unsqueeze(1)
    data = torch.sin(torch.arange(12, dtype=torch.double) * 2 * math.pi / 8 + phase)
    input, target = data[:, :-1], data[:, 1:]
    criterion = nn.MSELoss()
    optimizer = torch.optim.LBFGS(
        seq.parameters(), lr=0.5, max_iter=5, line_search_fn="strong_wolfe"
    )

    @torch.compile
    def gradients(input, target):
        optimizer.zero_grad()
        loss = criterion(seq(input), target)
        loss.backward()
        return loss

    losses = []
    for _ in range(3):
        losses.append(optimizer.step(lambda: gradients(input, target)).item())
    with torch.no_grad():
        future = seq(input, future=3)
    return [*losses, criterion(future[:, :-3], target).item(), *future[0, -3:].tolist()]
