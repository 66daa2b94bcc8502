"""Polynomial regression with a scheduled rate and gradient clipping."""


def main(torch):
    nn, F = torch.nn, torch.nn.functional
    x = torch.linspace(-1, 1, 64).unsqueeze(-1)
    features = torch.cat([x**i for i in range(1, 5)], 1)
    target = features @ torch.tensor([[0.5], [-2.0], [1.0], [3.0]]) + 0.7
    model = torch.fill(nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)

    @torch.compile
    def step(inputs, target):
        optimizer.zero_grad()
        loss = F.smooth_l1_loss(model(inputs), target)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    losses = []
    for _ in range(40):
        losses.append(step(features, target).item())
        scheduler.step()
    return [losses[0], losses[-1], *model.weight.flatten().tolist(), model.bias.item()]
