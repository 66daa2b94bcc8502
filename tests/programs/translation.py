"""Translation by a transformer with padding and causal masks, then greedy decoding."""

import math

PAD, BOS, EOS = 0, 1, 2


def main(torch):
    nn = torch.nn

    class PositionalEncoding(nn.Module):
        def __init__(self, emb_size, dropout=0.0, maxlen=20):
            super().__init__()
            den = torch.exp(-torch.arange(0, emb_size, 2) * math.log(10000) / emb_size)
            pos = torch.arange(0, maxlen).reshape(maxlen, 1)
            pos_embedding = torch.zeros((maxlen, emb_size))
            pos_embedding[:, 0::2] = torch.sin(pos * den)
            pos_embedding[:, 1::2] = torch.cos(pos * den)
            self.dropout = nn.Dropout(dropout)
            self.register_buffer("pos_embedding", pos_embedding.unsqueeze(-2))

        def forward(self, token_embedding):
            return self.dropout(token_embedding + self.pos_embedding[: token_embedding.size(0), :])

    class Seq2SeqTransformer(nn.Module):
        def __init__(self, emb_size=16, nhead=4, vocab=12, hidden=32):
            super().__init__()
            self.transformer = nn.Transformer(
                d_model=emb_size,
                nhead=nhead,
                num_encoder_layers=2,
                num_decoder_layers=2,
                dim_feedforward=hidden,
                dropout=0.0,
            )
            self.generator = nn.Linear(emb_size, vocab)
            self.src_tok_emb = nn.Embedding(vocab, emb_size)
            self.tgt_tok_emb = nn.Embedding(vocab, emb_size)
            self.scale = math.sqrt(emb_size)
            self.positional_encoding = PositionalEncoding(emb_size)

        def forward(self, src, tgt, src_mask, tgt_mask, src_padding, tgt_padding, memory_padding):
            src_emb = self.positional_encoding(self.src_tok_emb(src.long()) * self.scale)
            tgt_emb = self.positional_encoding(self.tgt_tok_emb(tgt.long()) * self.scale)
            outs = self.transformer(
                src_emb, tgt_emb, src_mask, tgt_mask, None, src_padding, tgt_padding, memory_padding
            )
            return self.generator(outs)

        def encode(self, src, src_mask):
            emb = self.positional_encoding(self.src_tok_emb(src) * self.scale)
            return self.transformer.encoder(emb, src_mask)

        def decode(self, tgt, memory, tgt_mask):
            emb = self.positional_encoding(self.tgt_tok_emb(tgt) * self.scale)
            return self.transformer.decoder(emb, memory, tgt_mask)

    def generate_square_subsequent_mask(sz):
        mask = (torch.triu(torch.ones((sz, sz))) == 1).transpose(0, 1)
        return mask.float().masked_fill(mask == 0, float("-inf")).masked_fill(mask == 1, 0.0)

    def create_mask(src, tgt):
        src_mask = torch.zeros((src.shape[0], src.shape[0])).type(torch.bool)
        tgt_mask = generate_square_subsequent_mask(tgt.shape[0])
        return src_mask, tgt_mask, (src == PAD).transpose(0, 1), (tgt == PAD).transpose(0, 1)

    def batch(seed, length=7, size=6):
        """Sentences of two lengths, and the same words backwards."""
        words = torch.labels(9, length, size, seed=seed) + 3
        words[length - 2 :, ::2] = PAD
        turned = torch.flip(words, (0,))
        ends = torch.full((1, size), EOS)
        tgt = torch.cat([torch.full((1, size), BOS), turned, ends])
        return words, tgt

    transformer = torch.fill(Seq2SeqTransformer())
    loss_fn = nn.CrossEntropyLoss(ignore_index=PAD)
    optimizer = torch.optim.Adam(transformer.parameters(), lr=0.003, betas=(0.9, 0.98), eps=1e-9)

    @torch.compile
    def train_step(src, tgt):
        tgt_input = tgt[:-1, :]
        src_mask, tgt_mask, src_padding, tgt_padding = create_mask(src, tgt_input)
        logits = transformer(
            src, tgt_input, src_mask, tgt_mask, src_padding, tgt_padding, src_padding
        )
        optimizer.zero_grad()
        tgt_out = tgt[1:, :]
        loss = loss_fn(logits.reshape(-1, logits.shape[-1]), tgt_out.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss

    transformer.train()
    losses = [train_step(*batch(seed)).item() for seed in range(8)]
    transformer.eval()
    src = batch(99)[0][:, 1:2]
    with torch.no_grad():
        memory = transformer.encode(src, torch.zeros(src.shape[0], src.shape[0]).bool())
        ys = torch.ones(1, 1).fill_(BOS).type(torch.long)
        for _ in range(5):
            tgt_mask = generate_square_subsequent_mask(ys.size(0)).type(torch.bool)
            out = transformer.decode(ys, memory, generate_square_subsequent_mask(ys.size(0)))
            assert tgt_mask.shape == (ys.size(0), ys.size(0))
            prob = transformer.generator(out.transpose(0, 1)[:, -1])
            _, next_word = torch.max(prob, dim=1)
            ys = torch.cat([ys, torch.ones(1, 1).type_as(src).fill_(next_word.item())], dim=0)
            if next_word.item() == EOS:
                break
    return [losses[0], losses[-1], prob.abs().sum().item(), *ys.flatten().float().tolist()]
