"""The neural tangent kernel by Jacobian contraction and by implicit vector products."""


def main(torch):
    nn = torch.nn
    functional_call, vmap = torch.func.functional_call, torch.func.vmap
    vjp, jvp, jacrev = torch.func.vjp, torch.func.jvp, torch.func.jacrev

    class CNN(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(2, 3, (3, 3))
            self.conv2 = nn.Conv2d(3, 3, (3, 3))
            self.fc = nn.Linear(12, 2)

        def forward(self, x):
            x = self.conv1(x)
            x = x.relu()
            x = self.conv2(x)
            x = x.relu()
            x = x.flatten(1)
            return self.fc(x)

    x_train, x_test = torch.data(3, 2, 6, 6), torch.data(2, 2, 6, 6, seed=1)
    net = torch.fill(CNN())
    params = {k: v.detach() for k, v in net.named_parameters()}

    def fnet_single(params, x):
        return functional_call(net, params, (x.unsqueeze(0),)).squeeze(0)

    def empirical_ntk_jacobian_contraction(fnet_single, params, x1, x2, compute="full"):
        jac1 = vmap(jacrev(fnet_single), (None, 0))(params, x1)
        jac1 = [j.flatten(2) for j in jac1.values()]
        jac2 = vmap(jacrev(fnet_single), (None, 0))(params, x2)
        jac2 = [j.flatten(2) for j in jac2.values()]
        einsum_expr = {"full": "Naf,Mbf->NMab", "trace": "Naf,Maf->NM"}[compute]
        return torch.stack(
            [torch.einsum(einsum_expr, j1, j2) for j1, j2 in zip(jac1, jac2, strict=True)]
        ).sum(0)

    def empirical_ntk_ntk_vps(func, params, x1, x2):
        def get_ntk(x1, x2):
            def func_x1(params):
                return func(params, x1)

            def func_x2(params):
                return func(params, x2)

            output, vjp_fn = vjp(func_x1, params)

            def get_ntk_slice(vec):
                vjps = vjp_fn(vec)
                _, jvps = jvp(func_x2, (params,), vjps)
                return jvps

            basis = torch.eye(output.numel(), dtype=output.dtype).view(output.numel(), -1)
            return vmap(get_ntk_slice)(basis)

        return vmap(vmap(get_ntk, (None, 0)), (0, None))(x1, x2)

    contraction = torch.compile(
        lambda p, a, b: empirical_ntk_jacobian_contraction(fnet_single, p, a, b)
    )
    from_contraction = contraction(params, x_train, x_test)
    from_products = empirical_ntk_ntk_vps(fnet_single, params, x_train, x_test)
    assert torch.allclose(from_products, from_contraction, atol=1e-3)
    trace = empirical_ntk_jacobian_contraction(fnet_single, params, x_train, x_test, "trace")
    own = empirical_ntk_jacobian_contraction(fnet_single, params, x_train, x_train, "trace")
    solution = torch.linalg.solve(own + 0.1 * torch.eye(3), torch.data(3, 1))
    return [*from_contraction.flatten().tolist(), *trace.flatten().tolist(), *solution[0].tolist()]
