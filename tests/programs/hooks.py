"""Hooks on modules and tensors: activations captured, gradients watched and changed."""


def main(torch):
    nn = torch.nn
    model = torch.fill(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)))
    activations, gradients = {}, {}

    def save_activation(name):
        def hook(module, inputs, output):
            activations[name] = output.detach()

        return hook

    def save_gradient(module, grad_input, grad_output):
        gradients["out"] = grad_output[0].detach()

    handles = [m.register_forward_hook(save_activation(n)) for n, m in model.named_modules() if n]
    handles.append(model[2].register_full_backward_hook(save_gradient))
    handles.append(model[0].register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,)))
    x = torch.data(5, 4).requires_grad_()
    y = model(x)
    y.retain_grad()
    y.register_hook(lambda g: g * 3)
    loss = y.square().mean()
    loss.backward()
    first = [activations["1"].abs().sum().item(), gradients["out"].sum().item()]
    first += [x.grad.sum().item(), y.grad.sum().item()]
    for handle in handles:
        handle.remove()
    doubled = torch.compile(lambda v: model(v).sum())(x.detach())
    norms = [p.grad.norm().item() for p in model.parameters()]
    return [*first, doubled.item(), *norms, float(len(activations))]
