"""Graph attention: masked attention over neighbours, several heads, semi-supervised nodes."""


def main(torch):
    nn, F = torch.nn, torch.nn.functional

    class GraphAttentionLayer(nn.Module):
        def __init__(self, in_features, out_features, n_heads, concat, dropout=0.0, slope=0.2):
            super().__init__()
            self.n_heads, self.concat, self.dropout = n_heads, concat, dropout
            self.n_hidden = out_features // n_heads if concat else out_features
            self.W = nn.Parameter(torch.empty(size=(in_features, self.n_hidden * n_heads)))
            self.a = nn.Parameter(torch.empty(size=(n_heads, 2 * self.n_hidden, 1)))
            self.leakyrelu = nn.LeakyReLU(slope)
            self.softmax = nn.Softmax(dim=1)
            self.reset_parameters()

        def reset_parameters(self):
            nn.init.xavier_normal_(self.W)
            nn.init.xavier_normal_(self.a)

        def scores(self, h):
            source = torch.matmul(h, self.a[:, : self.n_hidden, :])
            target = torch.matmul(h, self.a[:, self.n_hidden :, :])
            return self.leakyrelu(source + target.mT)

        def forward(self, h, adj_mat):
            n_nodes = h.shape[0]
            h = torch.mm(h, self.W).view(n_nodes, self.n_heads, self.n_hidden).permute(1, 0, 2)
            e = self.scores(h)
            connectivity_mask = -9e16 * torch.ones_like(e)
            e = torch.where(adj_mat > 0, e, connectivity_mask)
            attention = F.softmax(e, dim=-1)
            attention = F.dropout(attention, self.dropout, training=self.training)
            h_prime = torch.matmul(attention, h)
            if self.concat:
                return h_prime.permute(1, 0, 2).contiguous().view(n_nodes, -1)
            return h_prime.mean(dim=0)

    class GAT(nn.Module):
        def __init__(self, in_features, n_hidden, n_heads, num_classes):
            super().__init__()
            self.gat1 = GraphAttentionLayer(in_features, n_hidden, n_heads, concat=True)
            self.gat2 = GraphAttentionLayer(n_hidden, num_classes, 1, concat=False)

        def forward(self, x, adj_mat):
            x = F.elu(self.gat1(x, adj_mat))
            return F.log_softmax(self.gat2(x, adj_mat), dim=1)

    n = 24
    edges = torch.stack([torch.labels(n, 60), torch.labels(n, 60, seed=1)])
    adj = torch.zeros(n, n).index_put((edges[0], edges[1]), torch.ones(60))
    adj = ((adj + adj.t() + torch.eye(n)) > 0).float()
    features = torch.data(n, 6)
    labels = (adj @ features)[:, :3].argmax(1)
    idx_train, idx_test = torch.arange(16), torch.arange(16, n)

    gat_net = torch.fill(GAT(6, 16, 4, 3))
    optimizer = torch.optim.Adam(gat_net.parameters(), lr=0.02, weight_decay=5e-4)
    criterion = nn.NLLLoss()

    @torch.compile
    def train_iter(features, adj, labels):
        gat_net.train()
        optimizer.zero_grad()
        output = gat_net(features, adj)
        loss = criterion(output[idx_train], labels[idx_train])
        loss.backward()
        optimizer.step()
        return loss

    losses = [train_iter(features, adj, labels).item() for _ in range(20)]
    gat_net.eval()
    with torch.no_grad():
        output = gat_net(features, adj)
        loss_test = criterion(output[idx_test], labels[idx_test])
        accuracy = output[idx_test].argmax(dim=1).eq(labels[idx_test]).double().mean()
    return [losses[0], losses[-1], loss_test.item(), accuracy.item()]
