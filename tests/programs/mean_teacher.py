"""Semi-supervised learning with an averaged teacher, accumulated gradients and warm-up."""

import copy


def main(torch):
    nn, F, optim = torch.nn, torch.nn.functional, torch.optim
    swa_utils = optim.swa_utils

    def block(inner, outer):
        return nn.Sequential(
            nn.Conv1d(inner, outer, 3, padding="same"), nn.GroupNorm(2, outer), nn.SiLU()
        )

    student = torch.fill(
        nn.Sequential(block(2, 6), nn.MaxPool1d(2), block(6, 6), nn.Flatten(), nn.Linear(30, 3))
    )
    teacher = swa_utils.AveragedModel(
        student, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True
    )
    start = copy.deepcopy(student)
    decay = [p for p in student.parameters() if p.ndim >= 2]
    rest = [p for p in student.parameters() if p.ndim < 2]
    optimizer = optim.SGD(
        [{"params": decay, "weight_decay": 1e-2}, {"params": rest, "weight_decay": 0.0}],
        lr=0.1,
        momentum=0.9,
        nesterov=True,
    )
    warmup = optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=3)
    cosine = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5, eta_min=1e-3)
    scheduler = optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], milestones=[3])
    accumulation_steps = 2

    @torch.compile
    def accumulate(x, y, unlabelled, noise):
        logits = student(x)
        loss = F.cross_entropy(logits, y, label_smoothing=0.1)
        with torch.no_grad():
            soft = teacher(unlabelled).softmax(-1)
        consistency = F.kl_div(
            F.log_softmax(student(unlabelled + noise), -1), soft, reduction="batchmean"
        )
        total = (loss + 0.5 * consistency) / accumulation_steps
        total.backward()
        return loss, consistency

    history = []
    for step in range(16):
        x = torch.data(6, 2, 10, seed=step)
        y = (x.mean((1, 2)) > 0).long() + (x[:, 0].mean(1) > 0.2).long()
        loss, consistency = accumulate(
            x, y, torch.data(6, 2, 10, seed=50 + step), 0.1 * torch.data(6, 2, 10, seed=90 + step)
        )
        history.append((loss.item(), consistency.item()))
        if (step + 1) % accumulation_steps == 0:
            norm = nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            scheduler.step()
            teacher.update_parameters(student)
    moved = sum(
        (a - b).norm() for a, b in zip(teacher.module.parameters(), start.parameters(), strict=True)
    ).item()
    rates = [group["lr"] for group in optimizer.param_groups]
    return [*history[0], *history[-1], norm.item(), moved, *rates]
