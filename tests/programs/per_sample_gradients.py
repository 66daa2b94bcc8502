"""Gradients of each sample by vmap of grad, their clipped and noisy mean, and model ensembling."""

import copy


def main(torch):
    nn, F = torch.nn, torch.nn.functional
    from_func = torch.func
    functional_call, grad, vmap = from_func.functional_call, from_func.grad, from_func.vmap

    class SimpleCNN(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 4, 3, 1)
            self.conv2 = nn.Conv2d(4, 4, 3, 1)
            self.fc1 = nn.Linear(16, 8)
            self.fc2 = nn.Linear(8, 3)

        def forward(self, x):
            x = F.relu(self.conv1(x))
            x = F.relu(self.conv2(x))
            x = F.max_pool2d(x, 2)
            x = torch.flatten(x, 1)
            x = F.relu(self.fc1(x))
            return F.log_softmax(self.fc2(x), dim=1)

    def loss_fn(predictions, targets):
        return F.nll_loss(predictions, targets)

    model = torch.fill(SimpleCNN())
    data, targets = torch.data(6, 1, 8, 8), torch.labels(3, 6)

    def compute_grad(sample, target):
        sample, target = sample.unsqueeze(0), target.unsqueeze(0)
        loss = loss_fn(model(sample), target)
        return torch.autograd.grad(loss, list(model.parameters()))

    sample_grads = zip(*[compute_grad(data[i], targets[i]) for i in range(6)], strict=True)
    per_sample_grads = [torch.stack(shards) for shards in sample_grads]

    params = {k: v.detach() for k, v in model.named_parameters()}
    buffers = {k: v.detach() for k, v in model.named_buffers()}

    def compute_loss(params, buffers, sample, target):
        batch, targets = sample.unsqueeze(0), target.unsqueeze(0)
        predictions = functional_call(model, (params, buffers), (batch,))
        return loss_fn(predictions, targets)

    ft_compute_sample_grad = torch.compile(vmap(grad(compute_loss), in_dims=(None, None, 0, 0)))
    ft_per_sample_grads = ft_compute_sample_grad(params, buffers, data, targets)
    for mine, name in zip(per_sample_grads, params, strict=True):
        assert torch.allclose(mine, ft_per_sample_grads[name], atol=3e-3, rtol=1e-5)

    norms = torch.stack([g.flatten(1).norm(dim=1) for g in ft_per_sample_grads.values()]).norm(
        dim=0
    )
    factors = (1.0 / (norms + 1e-6)).clamp(max=1.0)
    private = {
        k: torch.einsum("i,i...->...", factors, g) / 6 + 0.01 * torch.data(*g.shape[1:])
        for k, g in ft_per_sample_grads.items()
    }
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.sub_(private[name], alpha=0.5)

    models = [torch.fill(SimpleCNN()) for _ in range(3)]
    with torch.no_grad():
        for i, m in enumerate(models):
            for p in m.parameters():
                p.mul_(1 + 0.3 * i)
    params, buffers = from_func.stack_module_state(models)
    base_model = copy.deepcopy(models[0])

    def fmodel(params, buffers, x):
        return functional_call(base_model, (params, buffers), (x,))

    minibatches = torch.data(3, 5, 1, 8, 8, seed=3)
    predictions = vmap(fmodel, in_dims=(0, 0, 0))(params, buffers, minibatches)
    looped = torch.stack([m(x) for m, x in zip(models, minibatches, strict=True)])
    assert torch.allclose(predictions, looped, atol=1e-3, rtol=1e-5)
    same = vmap(fmodel, in_dims=(0, 0, None), randomness="error")(params, buffers, minibatches[0])
    return [
        *norms.tolist(),
        loss_fn(model(data), targets).item(),
        predictions.mean().item(),
        *same[:, 0].flatten().tolist(),
    ]
