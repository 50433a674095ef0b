"""A training step of a GPT-2-like model in PyTorch: the model of docs/examples/transformer.h,
from its weights, as one writes it for a version without fused attention for CPUs."""
import torch
import torch.nn.functional as F


def shapes(vocab, context, width, layers):
    """Of the weights, in the order of the example's array."""
    hidden = 4 * width
    block = [(width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,),
             (width,), (width,), (hidden, width), (hidden,), (width, hidden), (width,)]
    return [(vocab, width), (context, width)] + layers * block + [(width,), (width,)]


def attention(x, heads, mask):
    """x [batch, tokens, 3 width] -> [batch, tokens, width]"""
    batch, tokens, wide = x.shape
    head = wide // 3 // heads
    q, k, v = x.view(batch, tokens, 3, heads, head).permute(2, 0, 3, 1, 4)
    scores = (q * head ** -0.5) @ k.transpose(-2, -1)
    o = torch.softmax(scores.add_(mask), -1) @ v
    return o.transpose(1, 2).reshape(batch, tokens, wide // 3)


def block(x, w, heads, mask):
    norm1, norm1_b, qkv, qkv_b, out, out_b, norm2, norm2_b, up, up_b, down, down_b = w
    h = F.layer_norm(x, norm1.shape, norm1, norm1_b)
    x = x + F.linear(attention(F.linear(h, qkv, qkv_b), heads, mask), out, out_b)
    h = F.layer_norm(x, norm2.shape, norm2, norm2_b)
    return x + F.linear(F.gelu(F.linear(h, up, up_b), approximate="tanh"), down, down_b)


class TrainStep:
    """Forward, backward and AdamW. `weights` and `grads`: the example's arrays, flat."""

    def __init__(self, b, weights, grads, target):
        tokens, self.heads = b["tokens"], b["dim"] // 64
        shape = shapes(b["cols"], tokens, b["dim"], b["layers"])
        sizes = [torch.Size(s).numel() for s in shape]
        self.w = [w.view(s).clone().requires_grad_()
                  for w, s in zip(weights.split(sizes), shape)]
        self.outputs = [g.view(s) for g, s in zip(grads.split(sizes), shape)]
        self.target = target
        self.token = torch.cat([target.new_zeros(1), target[:-1]]).view(-1, tokens)
        self.mask = torch.full((tokens, tokens), float("-inf")).triu(1)
        self.optimizer = torch.optim.AdamW(self.w, lr=1e-3, weight_decay=0.01)
        self.loss = None

    def value(self):
        words, places, *rest, norm, norm_b = self.w
        x = F.embedding(self.token, words) + places
        for i in range(0, len(rest), 12):
            x = block(x, rest[i:i + 12], self.heads, self.mask)
        logits = F.linear(F.layer_norm(x, norm.shape, norm, norm_b), words)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), self.target)

    def run(self, times):
        for _ in range(times):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.value()
            loss.backward()
            self.optimizer.step()
            self.loss = loss.item()

    def fetch(self):
        with torch.no_grad():
            for out, w in zip(self.outputs, self.w):
                out.copy_(w.grad)
        return self.loss
