"""A GAN with transposed convolutions and two optimizers."""


def main(torch):
    nn = torch.nn
    generator = nn.Sequential(
        nn.ConvTranspose2d(4, 8, 4, 1, 0, bias=False), nn.BatchNorm2d(8), nn.ReLU(True),
        nn.ConvTranspose2d(8, 1, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(8, 1, 4, 1, 0, bias=False), nn.Flatten(), nn.Sigmoid(),
    )  # fmt: skip
    torch.fill(generator), torch.fill(discriminator)
    criterion = nn.BCELoss()
    opt_g = torch.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.5, 0.999))
    opt_d = torch.optim.Adam(discriminator.parameters(), lr=2e-3, betas=(0.5, 0.999))

    @torch.compile
    def step(real, noise):
        discriminator.zero_grad()
        ones, zeros = torch.ones(real.size(0)), torch.zeros(real.size(0))
        loss_real = criterion(discriminator(real).view(-1), ones)
        loss_real.backward()
        fake = generator(noise)
        loss_fake = criterion(discriminator(fake.detach()).view(-1), zeros)
        loss_fake.backward()
        opt_d.step()
        generator.zero_grad()
        loss_g = criterion(discriminator(fake).view(-1), ones)
        loss_g.backward()
        opt_g.step()
        return loss_real + loss_fake, loss_g

    real = torch.tanh(torch.data(6, 1, 8, 8))
    for i in range(12):
        loss_d, loss_g = step(real, torch.data(6, 4, 1, 1, seed=i))
    return [loss_d.item(), loss_g.item()]
