"""Knowledge distillation: soft targets with a temperature, and matched hidden representations."""


def main(torch):
    nn, optim = torch.nn, torch.optim

    class Deep(nn.Module):
        def __init__(self, classes=4):
            super().__init__()
            self.features = nn.Sequential(
                nn.Conv2d(1, 8, kernel_size=3, padding=1),
                nn.ReLU(),
                nn.Conv2d(8, 8, kernel_size=3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(kernel_size=2, stride=2),
            )
            self.classifier = nn.Sequential(
                nn.Linear(128, 24), nn.ReLU(), nn.Dropout(0.0), nn.Linear(24, classes)
            )

        def forward(self, x):
            flat = torch.flatten(self.features(x), 1)
            hidden = nn.functional.avg_pool1d(flat.unsqueeze(1), 4).squeeze(1)
            return self.classifier(flat), hidden

    class Light(nn.Module):
        def __init__(self, classes=4):
            super().__init__()
            self.features = nn.Sequential(
                nn.Conv2d(1, 2, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
            )
            self.classifier = nn.Linear(32, classes)

        def forward(self, x):
            flat = torch.flatten(self.features(x), 1)
            return self.classifier(flat), flat

    def batch(seed):
        x = torch.data(12, 1, 8, 8, seed=seed)
        quarter = x.reshape(12, 2, 4, 2, 4).abs().mean(dim=(2, 4)).flatten(1)
        return x, quarter.argmax(1)

    teacher, student = torch.fill(Deep()), torch.fill(Light())
    ce_loss, cosine_loss = nn.CrossEntropyLoss(), nn.CosineEmbeddingLoss()
    teacher_optimizer = optim.Adam(teacher.parameters(), lr=0.01)

    @torch.compile
    def train_teacher(inputs, labels):
        teacher_optimizer.zero_grad()
        outputs, _ = teacher(inputs)
        loss = ce_loss(outputs, labels)
        loss.backward()
        teacher_optimizer.step()
        return loss

    first = [train_teacher(*batch(seed)).item() for seed in range(8)]
    teacher.eval()
    student.train()
    optimizer = optim.Adam(student.parameters(), lr=0.01)
    T, soft_weight, ce_weight, hidden_weight = 2, 0.25, 0.6, 0.15

    @torch.compile
    def distill(inputs, labels):
        optimizer.zero_grad()
        with torch.no_grad():
            teacher_logits, teacher_hidden = teacher(inputs)
        student_logits, student_hidden = student(inputs)
        soft_targets = nn.functional.softmax(teacher_logits / T, dim=-1)
        soft_prob = nn.functional.log_softmax(student_logits / T, dim=-1)
        soft_loss = torch.sum(soft_targets * (soft_targets.log() - soft_prob))
        soft_loss = soft_loss / soft_prob.size()[0] * (T**2)
        hidden_loss = cosine_loss(student_hidden, teacher_hidden, torch.ones(inputs.size(0)))
        loss = soft_weight * soft_loss + ce_weight * ce_loss(student_logits, labels)
        loss = loss + hidden_weight * hidden_loss
        loss.backward()
        optimizer.step()
        return loss, soft_loss, hidden_loss

    parts = [[v.item() for v in distill(*batch(seed))] for seed in range(20, 28)]
    student.eval()
    correct = total = 0
    with torch.no_grad():
        for seed in range(40, 43):
            inputs, labels = batch(seed)
            outputs, _ = student(inputs)
            _, predicted = torch.max(outputs.data, 1)
            total += labels.size(0)
            correct += (predicted == labels).sum().item()
    return [first[-1], *parts[0], *parts[-1], correct / total]
