"""A sparse mixture of experts: top-k gates, a load-balancing loss, experts on their own tokens."""


def main(torch):
    nn, F = torch.nn, torch.nn.functional

    class Expert(nn.Module):
        def __init__(self, n_embed):
            super().__init__()
            self.net = nn.Sequential(
                nn.Linear(n_embed, 4 * n_embed),
                nn.ReLU(),
                nn.Linear(4 * n_embed, n_embed),
                nn.Dropout(0.0),
            )

        def forward(self, x):
            return self.net(x)

    class NoisyTopkRouter(nn.Module):
        def __init__(self, n_embed, num_experts, top_k):
            super().__init__()
            self.top_k = top_k
            self.topkroute_linear = nn.Linear(n_embed, num_experts)
            self.noise_linear = nn.Linear(n_embed, num_experts)

        def forward(self, mh_output, noise):
            logits = self.topkroute_linear(mh_output)
            noisy_logits = logits + noise * F.softplus(self.noise_linear(mh_output))
            top_k_logits, indices = noisy_logits.topk(self.top_k, dim=-1)
            zeros = torch.full_like(noisy_logits, float("-inf"))
            sparse_logits = zeros.scatter(-1, indices, top_k_logits)
            return F.softmax(sparse_logits, dim=-1), indices, logits

    class SparseMoE(nn.Module):
        def __init__(self, n_embed, num_experts, top_k):
            super().__init__()
            self.router = NoisyTopkRouter(n_embed, num_experts, top_k)
            self.experts = nn.ModuleList([Expert(n_embed) for _ in range(num_experts)])
            self.num_experts, self.top_k = num_experts, top_k

        def forward(self, x, noise):
            gating_output, indices, logits = self.router(x, noise)
            final_output = torch.zeros_like(x)
            for i, expert in enumerate(self.experts):
                expert_mask = (indices == i).any(dim=-1)
                gate = gating_output[..., i] * expert_mask
                final_output = final_output + expert(x) * gate.unsqueeze(-1)
            used = F.one_hot(indices, self.num_experts).float().sum(2).mean((0, 1))
            balance = self.num_experts * (used * logits.softmax(-1).mean((0, 1))).sum()
            return final_output, balance

    class Grouped(nn.Module):
        """The same with one call of each expert on the tokens that chose it, for inference."""

        def __init__(self, moe):
            super().__init__()
            self.moe = moe

        def forward(self, x, noise):
            gating_output, indices, _ = self.moe.router(x, noise)
            final_output = torch.zeros_like(x)
            flat_x = x.view(-1, x.size(-1))
            flat_gating = gating_output.view(-1, gating_output.size(-1))
            for i, expert in enumerate(self.moe.experts):
                expert_mask = (indices == i).any(dim=-1)
                flat_mask = expert_mask.view(-1)
                if flat_mask.any():
                    expert_output = expert(flat_x[flat_mask])
                    gating_scores = flat_gating[flat_mask, i].unsqueeze(1)
                    final_output[expert_mask] += (expert_output * gating_scores).squeeze(1)
            return final_output

    model = torch.fill(SparseMoE(8, 4, 2))
    head = torch.fill(nn.Linear(8, 2))
    params = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(params, lr=3e-3)

    @torch.compile
    def step(x, noise, y):
        out, balance = model(x, noise)
        logits = head(x + out)
        loss = F.cross_entropy(logits.view(-1, 2), y.view(-1)) + 0.01 * balance
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss, balance

    history = []
    for i in range(10):
        x = torch.data(4, 6, 8, seed=i)
        y = (x[..., 0] * x[..., 1] > 0).long()
        history.append([v.item() for v in step(x, torch.data(4, 6, 4, seed=50 + i), y)])
    with torch.no_grad():
        x, noise = torch.data(4, 6, 8, seed=99), torch.data(4, 6, 4, seed=98)
        dense, balance = model.eval()(x, noise)
        grouped = Grouped(model)(x, noise)
    assert torch.allclose(dense, grouped, atol=1e-5)
    return [*history[0], *history[-1], balance.item(), grouped.sum().item()]
