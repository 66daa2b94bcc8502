"""REINFORCE with a baseline on a small chain world; discounted returns."""


def main(torch):
    nn, F = torch.nn, torch.nn.functional

    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.affine = nn.Linear(5, 16)
            self.action, self.value = nn.Linear(16, 2), nn.Linear(16, 1)

        def forward(self, x):
            x = F.relu(self.affine(x))
            return F.softmax(self.action(x), dim=-1), self.value(x)

    policy = torch.fill(Policy())
    optimizer = torch.optim.RMSprop(policy.parameters(), lr=1e-2)
    uniform = torch.data(30, 10, seed=5).abs() % 1.0

    @torch.compile
    def learn(states, actions, returns):
        optimizer.zero_grad()
        probs, values = policy(states)
        chosen = probs.gather(1, actions.unsqueeze(1)).squeeze(1)
        advantage = returns - values.squeeze(1)
        loss = -(chosen.log() * advantage.detach()).sum() + F.smooth_l1_loss(
            values.squeeze(1), returns
        )
        loss.backward()
        optimizer.step()
        return loss

    total, losses = 0.0, []
    for episode in range(20):
        place, states, actions, rewards = 2, [], [], []
        for t in range(10):
            state = F.one_hot(torch.tensor(place), 5).float()
            with torch.no_grad():
                probs, _ = policy(state)
            action = int(uniform[episode, t].item() > probs[0].item())
            states.append(state)
            actions.append(action)
            place = max(0, min(4, place + (1 if action else -1)))
            rewards.append(1.0 if place == 4 else -0.1)
        returns, value = [], 0.0
        for reward in rewards[::-1]:
            value = reward + 0.9 * value
            returns.insert(0, value)
        returns = torch.tensor(returns)
        returns = (returns - returns.mean()) / (returns.std() + 1e-6)
        losses.append(learn(torch.stack(states), torch.tensor(actions), returns).item())
        total += sum(rewards)
    return [losses[0], losses[-1], total]
