"""Graph convolution (Kipf and Welling) on a ring with chords; semi-supervised."""

import math


def main(torch):
    nn, F = torch.nn, torch.nn.functional

    class GraphConvolution(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.weight = nn.Parameter(torch.empty(inputs, outputs))
            self.bias = nn.Parameter(torch.empty(outputs))
            bound = 1.0 / math.sqrt(outputs)
            self.weight.data.uniform_(-bound, bound)
            self.bias.data.uniform_(-bound, bound)

        def forward(self, x, adjacency):
            return adjacency @ torch.mm(x, self.weight) + self.bias

    class GCN(nn.Module):
        def __init__(self):
            super().__init__()
            self.gc1, self.gc2 = GraphConvolution(6, 8), GraphConvolution(8, 3)

        def forward(self, x, adjacency):
            x = F.elu(self.gc1(x, adjacency))
            return F.log_softmax(self.gc2(x, adjacency), dim=1)

    n = 15
    rows = torch.arange(n)
    adjacency = torch.eye(n)
    for shift in (1, 4):
        adjacency[rows, (rows + shift) % n] = 1.0
        adjacency[(rows + shift) % n, rows] = 1.0
    scale = adjacency.sum(1).pow(-0.5)
    adjacency = scale.unsqueeze(1) * adjacency * scale.unsqueeze(0)
    labels, known = torch.div(rows * 3, n, rounding_mode="floor"), rows[::2]
    features = torch.data(n, 6) + F.one_hot(labels, 6).float()
    model = torch.fill(GCN())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05, weight_decay=5e-4)

    @torch.compile
    def step():
        optimizer.zero_grad()
        output = model(features, adjacency)
        loss = F.nll_loss(output[known], labels[known])
        loss.backward()
        optimizer.step()
        return loss

    losses = [step().item() for _ in range(30)]
    model.eval()
    with torch.no_grad():
        accuracy = (model(features, adjacency).max(1)[1] == labels).double().mean()
    return [losses[0], losses[-1], accuracy.item()]
