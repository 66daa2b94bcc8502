"""The fast gradient sign method against a trained classifier, and training against the attack."""


def main(torch):
    nn, F, optim = torch.nn, torch.nn.functional, torch.optim

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 6, 3, 1)
            self.conv2 = nn.Conv2d(6, 8, 3, 1)
            self.dropout1 = nn.Dropout(0.25)
            self.fc1 = nn.Linear(32, 16)
            self.fc2 = nn.Linear(16, 3)

        def forward(self, x):
            x = F.relu(self.conv1(x))
            x = F.relu(self.conv2(x))
            x = F.max_pool2d(x, 2)
            x = self.dropout1(torch.flatten(x, 1))
            x = F.relu(self.fc1(x))
            return F.log_softmax(self.fc2(x), dim=1)

    def batch(seed):
        x = torch.data(12, 1, 8, 8, seed=seed).sigmoid()
        y = torch.labels(3, 12, seed=seed)
        for i, label in enumerate(y):
            x[i, 0, 2 * label : 2 * label + 3] += 0.8
        return x.clamp_(0, 1), y

    mean, std = 0.55, 0.25

    def normalize(x):
        return (x - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor([std]).view(1, -1, 1, 1)

    def denorm(x):
        return x * torch.tensor([std]).view(1, -1, 1, 1) + mean

    def fgsm_attack(image, epsilon, data_grad):
        perturbed_image = image + epsilon * data_grad.sign()
        return torch.clamp(perturbed_image, 0, 1)

    model = torch.fill(Net())
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model.eval()  # deterministic, and so comparable

    @torch.compile
    def train(data, target):
        optimizer.zero_grad()
        loss = F.nll_loss(model(normalize(data)), target)
        loss.backward()
        optimizer.step()
        return loss

    losses = [train(*batch(seed)).item() for seed in range(6)]

    def test(epsilon):
        correct, adv_examples = 0, []
        for seed in (60, 61):
            data, target = batch(seed)
            data = normalize(data)
            data.requires_grad = True
            output = model(data)
            init_pred = output.max(1, keepdim=True)[1]
            loss = F.nll_loss(output, target)
            model.zero_grad()
            loss.backward()
            data_grad = data.grad.data
            perturbed = normalize(fgsm_attack(denorm(data), epsilon, data_grad))
            final_pred = model(perturbed).max(1, keepdim=True)[1]
            right = final_pred.eq(target.view_as(final_pred))
            correct += right.sum().item()
            for i in torch.nonzero((init_pred == target.view(-1, 1)) & ~right)[:2, 0]:
                adv_examples.append(perturbed[i].squeeze().detach().cpu().numpy().sum())
        return correct / 24, float(sum(adv_examples))

    attacked = [value for epsilon in (0.0, 0.1, 0.3) for value in test(epsilon)]

    for group in optimizer.param_groups:
        group["lr"] = 0.005

    @torch.compile
    def train_against(data, target):
        data = data.detach().requires_grad_(True)
        loss = F.nll_loss(model(normalize(data)), target)
        (g,) = torch.autograd.grad(loss, data)
        optimizer.zero_grad()
        robust = F.nll_loss(model(normalize(fgsm_attack(data, 0.1, g).detach())), target)
        robust.backward()
        optimizer.step()
        return robust

    robust = [train_against(*batch(seed)).item() for seed in range(30, 36)]
    return [losses[0], losses[-1], *attacked, robust[0], robust[-1]]
