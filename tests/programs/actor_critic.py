"""Actor-critic on a small corridor: log probabilities and entropies of a categorical policy."""

from collections import namedtuple

SavedAction = namedtuple("SavedAction", ["log_prob", "value", "entropy"])


def main(torch):
    nn, F = torch.nn, torch.nn.functional
    Categorical = torch.distributions.Categorical

    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.affine1 = nn.Linear(4, 16)
            self.action_head = nn.Linear(16, 3)
            self.value_head = nn.Linear(16, 1)

        def forward(self, x):
            x = F.relu(self.affine1(x))
            return F.softmax(self.action_head(x), dim=-1), self.value_head(x)

    class Corridor:
        """Walk left, stay or walk right; the reward is at the right end."""

        def reset(self):
            self.at, self.left = 0, 12
            return self.state()

        def state(self):
            return torch.tensor([self.at / 4, self.left / 12, float(self.at == 4), 1.0])

        def step(self, action):
            self.at = min(max(self.at + action - 1, 0), 4)
            self.left -= 1
            done = self.at == 4 or self.left == 0
            return self.state(), 1.0 if self.at == 4 else -0.05, done

    model = torch.fill(Policy())
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    eps = 1e-6
    env, gamma = Corridor(), 0.95

    def select_action(state, draw):
        probs, state_value = model(state)
        m = Categorical(probs)
        # The draw comes from outside, so that both libraries walk alike.
        action = (probs.cumsum(-1) < draw).sum().clamp(max=2)
        return action.item(), SavedAction(m.log_prob(action), state_value, m.entropy())

    def finish_episode(saved_actions, rewards):
        R, returns = 0, []
        for r in rewards[::-1]:
            R = r + gamma * R
            returns.insert(0, R)
        returns = torch.tensor(returns)
        returns = (returns - returns.mean()) / (returns.std() + eps)
        policy_losses, value_losses = [], []
        for (log_prob, value, entropy), R in zip(saved_actions, returns, strict=True):
            advantage = R - value.item()
            policy_losses.append(-log_prob * advantage - 0.01 * entropy)
            value_losses.append(F.smooth_l1_loss(value, torch.tensor([R])))
        optimizer.zero_grad()
        loss = torch.stack(policy_losses).sum() + torch.stack(value_losses).sum()
        loss.backward()
        optimizer.step()
        return loss.item()

    losses, lengths = [], []
    for episode in range(6):
        draws = torch.data(12, seed=episode).sigmoid().tolist()
        state, saved_actions, rewards = env.reset(), [], []
        for draw in draws:
            action, saved = select_action(state, draw)
            state, reward, done = env.step(action)
            saved_actions.append(saved)
            rewards.append(reward)
            if done:
                break
        losses.append(finish_episode(saved_actions, rewards))
        lengths.append(float(len(rewards)))

    @torch.compile
    def evaluate(states):
        probs, values = model(states)
        m = Categorical(probs)
        return m.entropy().mean(), m.log_prob(torch.full((5,), 2)).sum(), values.mean()

    env.reset()
    states = torch.stack([env.step(2)[0] for _ in range(5)])
    return [losses[0], losses[-1], *lengths, *(v.item() for v in evaluate(states))]
