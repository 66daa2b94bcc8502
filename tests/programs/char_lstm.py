"""A character-level LSTM language model and greedy generation from it."""

TEXT = "the quick brown fox jumps over the lazy dog and runs away from the dog " * 3


def main(torch):
    nn = torch.nn
    letters = sorted(set(TEXT))
    codes = torch.tensor([letters.index(c) for c in TEXT])

    class CharLSTM(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.embed = nn.Embedding(size, 8)
            self.lstm = nn.LSTM(8, 16, num_layers=2, batch_first=True)
            self.head = nn.Linear(16, size)

        def forward(self, x, state=None):
            y, state = self.lstm(self.embed(x), state)
            return self.head(y), state

    model = torch.fill(CharLSTM(len(letters)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    criterion = nn.CrossEntropyLoss()
    length, batch = 12, 4
    starts = [i * length for i in range(batch)]
    x = torch.stack([codes[s : s + length] for s in starts])
    y = torch.stack([codes[s + 1 : s + length + 1] for s in starts])

    @torch.compile
    def step(x, y):
        optimizer.zero_grad(set_to_none=True)
        logits, _ = model(x)
        loss = criterion(logits.reshape(-1, logits.size(-1)), y.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(x, y).item() for _ in range(25)]
    model.eval()
    generated, state, token = [], None, codes[:1].view(1, 1)
    with torch.no_grad():
        for _ in range(6):
            logits, state = model(token, state)
            token = logits[:, -1].argmax(-1, keepdim=True)
            generated.append(float(token.item()))
    return [losses[0], losses[-1], *generated]
