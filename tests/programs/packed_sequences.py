"""A sentence classifier over packed sequences of different lengths."""


def main(torch):
    nn = torch.nn
    rnn = nn.utils.rnn

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(20, 6, padding_idx=0)
            self.lstm = nn.LSTM(6, 5, bidirectional=True, batch_first=True)
            self.fc = nn.Linear(10, 2)

        def forward(self, text, lengths):
            packed = rnn.pack_padded_sequence(
                self.embedding(text), lengths, batch_first=True, enforce_sorted=False
            )
            outputs, (hidden, _) = self.lstm(packed)
            outputs, _ = rnn.pad_packed_sequence(outputs, batch_first=True)
            pooled = torch.cat((hidden[-2], hidden[-1]), dim=1)
            return self.fc(pooled + outputs.sum(1))

    lengths = [3, 7, 5, 2]
    sentences = [torch.labels(19, n, seed=n) + 1 for n in lengths]
    text = rnn.pad_sequence(sentences, batch_first=True)
    target = torch.tensor([0, 1, 1, 0])
    model = torch.fill(Classifier())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    criterion = nn.CrossEntropyLoss()

    @torch.compile
    def step(text, target):
        optimizer.zero_grad()
        loss = criterion(model(text, lengths), target)
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(text, target).item() for _ in range(15)]
    return [losses[0], losses[-1], model.embedding.weight.sum().item()]
