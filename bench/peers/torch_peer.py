"""PyTorch's side of the race, run by torch.c inside of the benchmark's process.

make(name, buffers) returns an object with run(times) and, where results are not written into
the buffers, fetch(), which puts them there and returns the loss (or None). Buffers are the
addresses and shapes of the race; tensors are views of them. Kernels write into preallocated
outputs, in inference mode, in a loop that TorchScript runs: a call then costs no Python.
"""
import ctypes

import torch
import torch.nn.functional as F

import torch_losses
import torch_train

aten = torch.ops.aten

# Where a call is short, the loop must not be Python's.
loops = torch.jit.CompilationUnit("""
def softmax(x: Tensor, y: Tensor, times: int) -> None:
    for i in range(times):
        torch._softmax(x, 1, False, out=y)

def log_softmax(x: Tensor, y: Tensor, times: int) -> None:
    for i in range(times):
        torch._log_softmax(x, 1, False, out=y)

def logsumexp(x: Tensor, y: Tensor, times: int) -> None:
    for i in range(times):
        torch.logsumexp(x, 1, out=y)
""")


def version():
    for line in torch.__config__.show().splitlines():
        if "CPU capability" in line:
            return f"{torch.__version__} ({line.split(':')[1].strip().lower()})"
    return torch.__version__


def set_threads(threads):
    torch.set_num_threads(threads)


def view(address, shape, dtype=torch.float32):
    count = 1
    for n in shape:
        count *= n
    size = count * (8 if dtype == torch.int64 else 4)
    memory = (ctypes.c_char * size).from_address(address)
    return torch.frombuffer(memory, dtype=dtype).view(*shape)


class Script:
    def __init__(self, name, x, y):
        self.loop, self.x, self.y = getattr(loops, name), x, y

    def run(self, times):
        with torch.inference_mode():
            self.loop(self.x, self.y, times)


class Autograd:
    """loss = f(*leaves), and the gradients of the leaves: what a user writes."""

    def __init__(self, f, leaves, outputs):
        self.f = f
        self.leaves = [leaf.requires_grad_() for leaf in leaves]
        self.outputs, self.grads, self.loss = outputs, None, None

    def run(self, times):
        for _ in range(times):
            self.grads = None
            self.loss = loss = self.f(*self.leaves)
            self.grads = torch.autograd.grad(loss, self.leaves)

    def fetch(self):
        with torch.no_grad():
            for out, grad in zip(self.outputs, self.grads):
                out.copy_(grad)
        self.grads = None
        return self.loss.item()


class CrossEntropyKernels:
    """The kernels that autograd calls, without autograd and without allocation."""

    def __init__(self, x, target, dx):
        self.x, self.target, self.dx = x, target, dx
        self.logp, self.dlogp = torch.empty_like(x), torch.empty_like(x)
        self.loss, self.total, self.one = torch.empty(()), torch.empty(()), torch.ones(())

    def step(self):
        torch._log_softmax(self.x, 1, False, out=self.logp)
        aten.nll_loss_forward.output(
            self.logp, self.target, None, 1, -100, output=self.loss, total_weight=self.total)
        aten.nll_loss_backward.grad_input(
            self.one, self.logp, self.target, None, 1, -100, self.total, grad_input=self.dlogp)
        aten._log_softmax_backward_data.out(
            self.dlogp, self.logp, 1, torch.float32, out=self.dx)

    def run(self, times):
        with torch.inference_mode():
            for _ in range(times):
                self.step()

    def fetch(self):
        return self.loss.item()


class LinearKernels(CrossEntropyKernels):
    def __init__(self, hidden, weight, target, dhidden, dweight):
        self.hidden, self.weight, self.dhidden, self.dweight = hidden, weight, dhidden, dweight
        logits = torch.empty(hidden.shape[0], weight.shape[0])
        super().__init__(logits, target, logits)

    def step(self):
        torch.mm(self.hidden, self.weight.t(), out=self.x)
        super().step()
        torch.mm(self.dx, self.weight, out=self.dhidden)
        torch.mm(self.dx.t(), self.hidden, out=self.dweight)


class AdamW:
    def __init__(self, w, grad, sizes, foreach):
        leaves = []
        for leaf, g in zip(w.split(sizes), grad.split(sizes)):
            leaf = leaf.detach().requires_grad_()
            leaf.grad = g
            leaves.append(leaf)
        self.optimizer = torch.optim.AdamW(leaves, lr=1e-3, weight_decay=0.01, foreach=foreach)

    def run(self, times):
        for _ in range(times):
            self.optimizer.step()


class AdamWChain(AdamW):
    """With clipping and the perpendicular gradient, which change the gradients: on its own copy."""

    def __init__(self, w, grad, sizes, foreach):
        super().__init__(w, grad.clone(), sizes, foreach)
        self.leaves = self.optimizer.param_groups[0]["params"]

    @staticmethod
    def project(w, g):
        w, g = w.view(-1), g.view(-1)
        along = torch.dot(w, g) / (torch.dot(w, w) + 1e-30)
        norm = g.norm()
        g.add_(w * -along)
        g.mul_(norm / (g.norm() + 1e-30))

    def run(self, times):
        for _ in range(times):
            torch.nn.utils.clip_grad_norm_(self.leaves, 1.0)
            with torch.no_grad():
                for leaf in self.leaves:
                    self.project(leaf, leaf.grad)
            self.optimizer.step()


def loss(name, b, target):
    """A composition of torch_losses on the first rows; a mean over all of them."""
    rows, cols, part = b["rows"], b["cols"], b["part"]
    x, tau = view(b["x"], (rows, cols)), view(b["tau"], (rows,))[:part]
    prob = view(b["prob"], (rows, cols))[:part] if b["prob"] else None
    # The second matrix: the logits from the last row to the first.
    other = torch.empty(part, cols).copy_(x[rows - part:].flip(0))
    given = torch_losses.Given(target[:part], other, prob, tau)
    function = torch_losses.LOSSES[name]
    leaves, outputs = [x[:part].detach()], [view(b["y"], (rows, cols))[:part]]
    if b["dother"]:
        leaves.append(other)
        outputs.append(view(b["dother"], (rows, cols))[:part])
    return Autograd(lambda *leaf: function(given, *leaf).sum() / rows, leaves, outputs)


def causal_mask(heads, tokens, window):
    """What is added to scores: -inf where hidden; every other head sees `window` keys, if not 0."""
    i = torch.arange(tokens)
    apart = i[:, None] - i[None, :]
    mask = torch.zeros(tokens, tokens).masked_fill(apart < 0, float("-inf"))
    if not window:
        return mask
    local = mask.masked_fill(apart >= window, float("-inf"))
    return torch.stack([local if h % 2 else mask for h in range(heads)])


class Attention:
    """Attention from parts, as it was written before there were fused kernels."""

    def __init__(self, q, k, v, out, mask):
        self.q, self.kt, self.v, self.out, self.mask = q, k.transpose(1, 2), v, out, mask
        self.scale = q.shape[-1] ** -0.5
        self.scores = torch.empty(q.shape[0], q.shape[1], q.shape[1])

    def run(self, times):
        s = self.scores
        with torch.inference_mode():
            for _ in range(times):
                torch.bmm(self.q * self.scale, self.kt, out=s)
                s.add_(self.mask)
                torch._softmax(s, -1, False, out=s)
                torch.bmm(s, self.v, out=self.out)


def make_attention(name, b):
    tokens, heads, dim = b["rows"], b["cols"], b["dim"]
    q, k, v = view(b["x"], (3, heads, tokens, dim))
    o, *grads = view(b["y"], (4, heads, tokens, dim))
    mask = causal_mask(heads, tokens, 64 if name == "ls_attention" else 0)
    if name != "attention_grad":
        return Attention(q, k, v, o, mask)
    dout, scale = view(b["grad"], (heads, tokens, dim)), dim ** -0.5

    def value(q, k, v):
        scores = torch.bmm(q * scale, k.transpose(1, 2)).add_(mask)
        return (torch.bmm(torch.softmax(scores, -1), v) * dout).sum()

    return Autograd(value, [q, k, v], grads)


def linear_attention(q, k, v, chunk=64):
    """Causal, a chunk at a time: pairs within chunks, and running sums of k' v between them."""
    heads, tokens, dim = q.shape
    q, k, v = (x.view(heads, tokens // chunk, chunk, -1) for x in (q, k, v))
    pairs = torch.matmul(q, k.transpose(-1, -2)).tril()
    states = torch.matmul(k.transpose(-1, -2), v).cumsum(1)
    before = F.pad(states[:, :-1], (0, 0, 0, 0, 1, 0))
    return (torch.matmul(pairs, v) + torch.matmul(q, before)).view(heads, tokens, -1)


class Linear:
    """Linear attention, forward: in chunks, or with all pairs at once."""

    def __init__(self, q, k, v, out, quadratic):
        self.q, self.k, self.v, self.out, self.quadratic = q, k, v, out, quadratic

    def run(self, times):
        with torch.inference_mode():
            for _ in range(times):
                if self.quadratic:
                    pairs = torch.bmm(self.q, self.k.transpose(1, 2)).tril_()
                    torch.bmm(pairs, self.v, out=self.out)
                else:
                    self.out.copy_(linear_attention(self.q, self.k, self.v))


def make_linear_attention(name, b):
    tokens, heads, dim = b["rows"], b["cols"], b["dim"]
    q, k, v = view(b["x"], (3, heads, tokens, dim))
    o, *grads = view(b["y"], (4, heads, tokens, dim))
    if not name.endswith("grad"):
        return Linear(q, k, v, o, name.endswith("quadratic"))
    dout = view(b["grad"], (heads, tokens, dim))

    def value(q, k, v):
        out = linear_attention(q, k, v)
        with torch.no_grad():
            o.copy_(out)
        return (out * dout).sum()

    return Autograd(value, [q, k, v], grads)


def make(name, b):
    """b: rows, cols, dim, sizes, and addresses by name, 0 where the race has no such buffer."""
    rows, cols, dim = b["rows"], b["cols"], b["dim"]
    if name.startswith("sklearn"):
        import sklearn_peer
        return sklearn_peer.Fit(name, b, torch.get_num_threads())
    if name.startswith("linear_attention"):
        return make_linear_attention(name, b)
    if "attention" in name:
        return make_attention(name, b)
    if name in ("softmax", "log_softmax"):
        return Script(name, view(b["x"], (rows, cols)), view(b["y"], (rows, cols)))
    if name == "logsumexp":
        return Script(name, view(b["x"], (rows, cols)), view(b["row_out"], (rows,)))
    if name.startswith("adamw"):
        rule = AdamWChain if "chain" in name else AdamW
        return rule(view(b["x"], (cols,)), view(b["grad"], (cols,)), b["sizes"],
                    name.endswith("foreach"))
    target = view(b["target"], (rows,), torch.int64)
    if name == "train_step":
        size = sum(b["sizes"])
        return torch_train.TrainStep(b, view(b["x"], (size,)), view(b["y"], (size,)), target)
    if name in torch_losses.LOSSES:
        return loss(name, b, target)
    if name.startswith("cross_entropy"):
        x, y = view(b["x"], (rows, cols)), view(b["y"], (rows, cols))
        if name == "cross_entropy_kernels":
            return CrossEntropyKernels(x, target, y)
        return Autograd(lambda x: F.cross_entropy(x, target), [x], [y])
    hidden, dhidden = view(b["hidden"], (rows, dim)), view(b["dhidden"], (rows, dim))
    weight, dweight = view(b["weight"], (cols, dim)), view(b["dweight"], (cols, dim))
    if name == "linear_kernels":
        return LinearKernels(hidden, weight, target, dhidden, dweight)
    if name == "linear":
        return Autograd(lambda h, w: F.cross_entropy(F.linear(h, w), target), [hidden, weight],
                        [dhidden, dweight])
    raise ValueError(name)
