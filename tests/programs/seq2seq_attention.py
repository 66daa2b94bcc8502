"""A GRU encoder and an attention decoder with teacher forcing, for reversing sequences."""


def main(torch):
    nn, F = torch.nn, torch.nn.functional
    words, hidden, start = 9, 12, 0

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(words, hidden)
            self.gru = nn.GRU(hidden, hidden, batch_first=True)

        def forward(self, x):
            return self.gru(self.embedding(x))

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.Wa, self.Ua = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
            self.Va = nn.Linear(hidden, 1)

        def forward(self, query, keys):
            scores = self.Va(torch.tanh(self.Wa(query) + self.Ua(keys)))
            weights = F.softmax(scores.squeeze(2).unsqueeze(1), dim=-1)
            return torch.bmm(weights, keys), weights

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(words, hidden)
            self.attention = Attention()
            self.gru = nn.GRU(2 * hidden, hidden, batch_first=True)
            self.out = nn.Linear(hidden, words)

        def forward(self, outputs, state, target=None, length=5):
            token = torch.full((outputs.size(0), 1), start, dtype=torch.long)
            found = []
            for i in range(length):
                context, _ = self.attention(state.permute(1, 0, 2), outputs)
                step = torch.cat((self.embedding(token), context), dim=2)
                output, state = self.gru(step, state)
                found.append(self.out(output))
                if target is not None:
                    token = target[:, i].unsqueeze(1)
                else:
                    token = found[-1].argmax(-1).detach()
            return F.log_softmax(torch.cat(found, dim=1), dim=-1)

    encoder, decoder = torch.fill(Encoder()), torch.fill(Decoder())
    parameters = list(encoder.parameters()) + list(decoder.parameters())
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    criterion = nn.NLLLoss()
    source = torch.labels(words - 1, 8, 5) + 1
    target = source.flip(1)

    @torch.compile
    def step(source, target):
        optimizer.zero_grad()
        outputs, state = encoder(source)
        result = decoder(outputs, state, target)
        loss = criterion(result.view(-1, words), target.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(source, target).item() for _ in range(20)]
    with torch.no_grad():
        decoded = decoder(*encoder(source)).argmax(-1)
    return [losses[0], losses[-1], (decoded == target).float().mean().item()]
