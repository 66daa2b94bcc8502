"""Pruning a small convolutional network step by step, training on, and making it permanent."""


def main(torch):
    nn, F = torch.nn, torch.nn.functional
    prune = nn.utils.prune

    class LeNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 6, 3)
            self.conv2 = nn.Conv2d(6, 8, 3)
            self.fc1 = nn.Linear(32, 16)
            self.fc2 = nn.Linear(16, 3)

        def forward(self, x):
            x = F.relu(self.conv1(x))
            x = F.max_pool2d(F.relu(self.conv2(x)), 2)
            x = x.view(-1, int(x.nelement() / x.shape[0]))
            return self.fc2(F.relu(self.fc1(x)))

    class FooBarPruningMethod(prune.BasePruningMethod):
        """Prunes every other entry."""

        PRUNING_TYPE = "unstructured"

        def compute_mask(self, t, default_mask):
            mask = default_mask.clone()
            mask.view(-1)[::2] = 0
            return mask

    def sparsity(weight):
        return 100.0 * float(torch.sum(weight == 0)) / float(weight.nelement())

    model = torch.fill(LeNet())
    prune.l1_unstructured(model.conv1, name="bias", amount=3)
    prune.ln_structured(model.conv1, name="weight", amount=0.5, n=2, dim=0)
    prune.l1_unstructured(model.conv1, "weight", amount=0.2)
    FooBarPruningMethod.apply(model.fc2, "bias")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    @torch.compile
    def train(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    losses = [
        train(torch.data(8, 1, 8, 8, seed=i), torch.labels(3, 8, seed=i)).item() for i in range(6)
    ]
    first = sparsity(model.conv1.weight)
    buffers = sorted(name for name, _ in model.named_buffers())
    assert buffers == ["conv1.bias_mask", "conv1.weight_mask", "fc2.bias_mask"]

    prune.global_unstructured(
        [(model.conv2, "weight"), (model.fc1, "weight"), (model.fc2, "weight")],
        pruning_method=prune.L1Unstructured,
        amount=0.3,
    )
    layers = [model.conv2, model.fc1, model.fc2]
    shares = [sparsity(layer.weight) for layer in layers]
    losses += [
        train(torch.data(8, 1, 8, 8, seed=i), torch.labels(3, 8, seed=i)).item() for i in range(3)
    ]
    for layer in (model.conv1, *layers):
        prune.remove(layer, "weight")
    assert sorted(model.state_dict())[:3] == ["conv1.bias_mask", "conv1.bias_orig", "conv1.weight"]
    with torch.no_grad():
        total = model(torch.data(4, 1, 8, 8)).sum().item()
    return [*losses, first, *shares, total, sparsity(model.fc1.weight)]
