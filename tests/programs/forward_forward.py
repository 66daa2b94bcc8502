"""The forward-forward algorithm (Hinton, 2022): every layer learns by a loss of its own."""

from itertools import pairwise


def main(torch):
    nn = torch.nn
    Adam = torch.optim.Adam

    class Layer(nn.Linear):
        def __init__(self, in_features, out_features):
            super().__init__(in_features, out_features)
            self.relu = nn.ReLU()
            self.threshold = 1.5
            self.num_epochs = 8

        def prepare(self):
            self.opt = Adam(self.parameters(), lr=0.03)
            self.update = torch.compile(self.learn)

        def forward(self, x):
            x_direction = x / (x.norm(2, 1, keepdim=True) + 1e-4)
            return self.relu(torch.mm(x_direction, self.weight.T) + self.bias.unsqueeze(0))

        def learn(self, x_pos, x_neg):
            g_pos = self.forward(x_pos).pow(2).mean(1)
            g_neg = self.forward(x_neg).pow(2).mean(1)
            both = torch.cat([-g_pos + self.threshold, g_neg - self.threshold])
            loss = torch.log(1 + torch.exp(both)).mean()
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
            return loss

        def train_layer(self, x_pos, x_neg):
            for _ in range(self.num_epochs):
                loss = self.update(x_pos, x_neg)
            return self.forward(x_pos).detach(), self.forward(x_neg).detach(), loss.item()

    class Net(torch.nn.Module):
        def __init__(self, dims):
            super().__init__()
            self.layers = nn.ModuleList([Layer(a, b) for a, b in pairwise(dims)])

        def predict(self, x):
            goodness_per_label = []
            for label in range(4):
                h = overlay_y_on_x(x, label)
                goodness = []
                for layer in self.layers:
                    h = layer(h)
                    goodness += [h.pow(2).mean(1)]
                goodness_per_label += [sum(goodness).unsqueeze(1)]
            goodness_per_label = torch.cat(goodness_per_label, 1)
            return goodness_per_label.argmax(1), goodness_per_label

    def overlay_y_on_x(x, y):
        x_ = x.clone()
        x_[:, :4] *= 0.0
        x_[range(x.shape[0]), y] = x.max()
        return x_

    x = torch.data(24, 12, seed=1)
    y = x[:, 4:8].argmax(1)
    net = torch.fill(Net([12, 10, 8]))
    for layer in net.layers:
        layer.prepare()
    h_pos = overlay_y_on_x(x, y)
    h_neg = overlay_y_on_x(x, (y + 1 + torch.labels(3, 24, seed=2)) % 4)
    losses = []
    for layer in net.layers:
        h_pos, h_neg, loss = layer.train_layer(h_pos, h_neg)
        losses.append(loss)
    predicted, goodness = net.predict(x)
    error = 1.0 - predicted.eq(y).float().mean().item()
    return [*losses, error, goodness.sum().item()]
