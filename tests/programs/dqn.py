"""DQN: a replay memory, a target network that follows slowly, and a clipped Huber loss."""

import random
from collections import deque, namedtuple

Transition = namedtuple("Transition", ("state", "action", "next_state", "reward"))


class ReplayMemory:
    def __init__(self, capacity):
        self.memory = deque(maxlen=capacity)

    def push(self, *args):
        self.memory.append(Transition(*args))

    def sample(self, batch_size):
        return random.sample(self.memory, batch_size)

    def __len__(self):
        return len(self.memory)


def main(torch):
    nn, F, optim = torch.nn, torch.nn.functional, torch.optim
    random.seed(0)
    gamma, tau, batch_size = 0.9, 0.05, 16

    class DQN(nn.Module):
        def __init__(self, n_observations, n_actions):
            super().__init__()
            self.layer1 = nn.Linear(n_observations, 16)
            self.layer2 = nn.Linear(16, 16)
            self.layer3 = nn.Linear(16, n_actions)

        def forward(self, x):
            x = F.relu(self.layer1(x))
            x = F.relu(self.layer2(x))
            return self.layer3(x)

    policy_net, target_net = torch.fill(DQN(3, 2)), DQN(3, 2)
    target_net.load_state_dict(policy_net.state_dict())
    optimizer = optim.AdamW(policy_net.parameters(), lr=1e-2, amsgrad=True)
    memory = ReplayMemory(200)
    criterion = nn.SmoothL1Loss()

    @torch.compile
    def learn(states, actions, rewards, next_states, mask):
        state_action_values = policy_net(states).gather(1, actions)
        with torch.no_grad():
            following = target_net(next_states).max(1).values
        next_state_values = torch.where(mask, following, 0.0)
        expected = (next_state_values * gamma) + rewards
        loss = criterion(state_action_values, expected.unsqueeze(1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_(policy_net.parameters(), 100)
        optimizer.step()
        return loss

    def optimize_model():
        if len(memory) < batch_size:
            return None
        batch = Transition(*zip(*memory.sample(batch_size), strict=True))
        mask = torch.tensor(tuple(s is not None for s in batch.next_state), dtype=torch.bool)
        nothing = torch.zeros(1, 3)
        following = torch.cat([nothing if s is None else s for s in batch.next_state])
        return learn(
            torch.cat(batch.state),
            torch.cat(batch.action),
            torch.cat(batch.reward),
            following,
            mask,
        )

    def select_action(state, steps):
        if random.random() > 0.9 * 0.97**steps:
            with torch.no_grad():
                return policy_net(state).max(1).indices.view(1, 1)
        return torch.tensor([[random.randrange(2)]], dtype=torch.long)

    losses, total, steps = [], 0.0, 0
    for _episode in range(6):
        x = 0.0
        for t in range(12):
            state = torch.tensor([x, x * x, t / 12], dtype=torch.float32).unsqueeze(0)
            action = select_action(state, steps)
            steps += 1
            x = x + (0.3 if action.item() else -0.3)
            done = abs(x) > 1.4
            reward = torch.tensor([1.0 if x > 0 else -0.5])
            total += reward.item()
            after = torch.tensor([x, x * x, (t + 1) / 12], dtype=torch.float32).unsqueeze(0)
            memory.push(state, action, None if done else after, reward)
            loss = optimize_model()
            if loss is not None:
                losses.append(loss.item())
            target_dict, policy_dict = target_net.state_dict(), policy_net.state_dict()
            for key in policy_dict:
                target_dict[key] = policy_dict[key] * tau + target_dict[key] * (1 - tau)
            target_net.load_state_dict(target_dict)
            if done:
                break
    norm = sum(p.square().sum() for p in target_net.parameters()).sqrt()
    return [losses[0], losses[-1], total, norm.item()]
