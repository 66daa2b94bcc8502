"""Denoising diffusion on points of a spiral: noise schedule, training, ancestral sampling."""

import math


def main(torch):
    nn, F = torch.nn, torch.nn.functional
    T = 20
    betas = torch.linspace(1e-3, 0.2, T)
    alphas = 1.0 - betas
    alphas_cumprod = torch.cumprod(alphas, dim=0)
    alphas_cumprod_prev = F.pad(alphas_cumprod[:-1], (1, 0), value=1.0)
    posterior_variance = betas * (1.0 - alphas_cumprod_prev) / (1.0 - alphas_cumprod)

    def extract(a, t, x_shape):
        out = a.gather(-1, t)
        return out.reshape(t.shape[0], *((1,) * (len(x_shape) - 1)))

    class SinusoidalPositionEmbeddings(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.dim = dim

        def forward(self, time):
            half_dim = self.dim // 2
            embeddings = math.log(10000) / (half_dim - 1)
            embeddings = torch.exp(torch.arange(half_dim, device=time.device) * -embeddings)
            embeddings = time[:, None] * embeddings[None, :]
            return torch.cat((embeddings.sin(), embeddings.cos()), dim=-1)

    class Denoiser(nn.Module):
        def __init__(self, dim=16, hidden=32):
            super().__init__()
            self.time_mlp = nn.Sequential(
                SinusoidalPositionEmbeddings(dim), nn.Linear(dim, hidden), nn.GELU()
            )
            self.inner = nn.Linear(2, hidden)
            self.blocks = nn.ModuleList([nn.Linear(hidden, hidden) for _ in range(2)])
            self.norms = nn.ModuleList([nn.LayerNorm(hidden) for _ in range(2)])
            self.out = nn.Linear(hidden, 2)

        def forward(self, x, time):
            t = self.time_mlp(time)
            h = self.inner(x)
            for block, norm in zip(self.blocks, self.norms, strict=True):
                h = h + F.silu(block(norm(h) + t))
            return self.out(h)

    model = torch.fill(Denoiser())
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    ema = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )

    def q_sample(x_start, t, noise):
        mean = extract(alphas_cumprod.sqrt(), t, x_start.shape) * x_start
        return mean + extract((1.0 - alphas_cumprod).sqrt(), t, x_start.shape) * noise

    @torch.compile
    def train_step(x, t, noise):
        optimizer.zero_grad(set_to_none=True)
        loss = F.smooth_l1_loss(model(q_sample(x, t, noise), t), noise)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    @torch.compile
    @torch.no_grad()
    def p_sample(x, t, noise):
        mean = extract(alphas.rsqrt(), t, x.shape) * (
            x - extract(betas * (1.0 - alphas_cumprod).rsqrt(), t, x.shape) * ema(x, t)
        )
        variance = extract(posterior_variance, t, x.shape)
        return mean + (t > 0).float()[:, None] * variance.sqrt() * noise

    losses = []
    for step in range(25):
        angle = torch.data(32, 1, seed=step).abs() * 2
        x = torch.cat([angle * angle.cos(), angle * angle.sin()], dim=1) / 3
        t = torch.labels(T, 32, seed=100 + step)
        losses.append(train_step(x, t, torch.data(32, 2, seed=200 + step)).item())
        ema.update_parameters(model)
    ema.eval()
    img = torch.data(16, 2, seed=7)
    for i in reversed(range(T)):
        t = torch.full((16,), i, dtype=torch.long)
        img = p_sample(img, t, torch.data(16, 2, seed=300 + i))
    return [losses[0], losses[-1], img.mean().item(), img.std().item(), *img[0].tolist()]
