"""Images read row by row by an LSTM, with an Adadelta optimiser and a step schedule."""


def main(torch):
    nn, F, optim = torch.nn, torch.nn.functional, torch.optim

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(input_size=8, hidden_size=12, batch_first=True)
            self.batchnorm = nn.BatchNorm1d(12)
            self.dropout1, self.dropout2 = nn.Dropout2d(0.0), nn.Dropout2d(0.0)
            self.fc1, self.fc2 = nn.Linear(12, 10), nn.Linear(10, 4)

        def forward(self, input):
            input = input.reshape(-1, 8, 8)
            output, _hidden = self.rnn(input)
            output = output[:, -1, :]
            output = self.batchnorm(output)
            output = F.relu(self.fc1(output))
            return F.log_softmax(self.fc2(output), dim=1)

    images = torch.data(48, 1, 8, 8, seed=1)
    labels = images.mean((1, 2, 3)).argsort().argsort() // 12
    dataset = torch.utils.data.TensorDataset(images, labels)
    train_loader = torch.utils.data.DataLoader(dataset, batch_size=16, drop_last=True)
    model = torch.fill(Net())
    optimizer = optim.Adadelta(model.parameters(), lr=0.5)
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    forward = torch.compile(model)

    history = []
    for _epoch in range(4):
        model.train()
        for _batch_idx, (data, target) in enumerate(train_loader):
            optimizer.zero_grad()
            output = forward(data)
            loss = F.nll_loss(output, target)
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        scheduler.step()

    model.eval()
    test_loss, correct = 0.0, 0
    with torch.no_grad():
        for data, target in train_loader:
            output = forward(data)
            test_loss += F.nll_loss(output, target, reduction="sum").item()
            pred = output.argmax(dim=1, keepdim=True)
            correct += pred.eq(target.view_as(pred)).sum().item()
    test_loss /= len(train_loader.dataset)
    return [history[0], history[-1], test_loss, float(correct), scheduler.get_last_lr()[0]]
