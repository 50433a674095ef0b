"""The losses of losses.c as a user composes them of PyTorch's operations; autograd goes back.

Each function takes what it is given beside the logits, then the logits [rows, cols], and
returns a loss for each row. Of several ways the fastest is taken (PyTorch 1.13, one thread):

  - cross_entropy, binary_cross_entropy_with_logits, multi_margin_loss and mse_loss where they
    do most of the work; losses that go by one entry of the softmax start at cross_entropy;
  - kl_div only of logarithms: of probabilities it is four times slower, as torch.xlogy is;
  - the label among others is covered by -1e30: taking it out by a boolean mask is six times
    slower; torch.where of two branches is three times slower than relu for each of them.
"""
import math
from collections import namedtuple

import torch
import torch.nn.functional as F

# target [rows]; other [rows, cols], logits; prob [rows, cols]; tau [rows]. None: not given.
Given = namedtuple("Given", "target other prob tau")

LOSSES = {}


def loss(name):
    def add(function):
        LOSSES[name] = function
        return function
    return add


def cross_entropy(x, target):
    return F.cross_entropy(x, target, reduction="none")


def pick(x, target):
    return x.gather(1, target[:, None]).squeeze(1)


def one_hot(x, target):
    return torch.zeros_like(x).scatter_(1, target[:, None], 1.0)


# ---- With labels ---------------------------------------------------------------------------


@loss("smoothed")
def smoothed(given, x):
    ce = F.cross_entropy(x, given.target, reduction="none", label_smoothing=0.1)
    return ce + 1e-4 * torch.logsumexp(x, 1) ** 2


@loss("comp-sum")
def comp_sum(given, x, tau=1.5):
    return torch.expm1((1 - tau) * cross_entropy(x, given.target)) / (1 - tau)


@loss("squared-softmax")
def squared_softmax(given, x):
    return 0.5 * (torch.softmax(x, 1) - one_hot(x, given.target)).square().sum(1)


@loss("focal")
def focal(given, x):
    ce = cross_entropy(x, given.target)
    return (1 - torch.exp(-ce)) ** 2 * ce


@loss("poly1")
def poly1(given, x):
    ce = cross_entropy(x, given.target)
    return ce + (1 - torch.exp(-ce))


def stable(x):
    return F.relu(x) + 1 / (1 + F.relu(-x))


@loss("stablemax")
def stablemax(given, x):
    s = stable(x)
    return s.sum(1).log() - pick(s, given.target).log()


@loss("hinge")
def hinge(given, x):
    sign = torch.ones_like(x).scatter_(1, given.target[:, None], -1.0)
    return F.relu(1 + sign * x).square().sum(1)


@loss("hinge-max")
def hinge_max(given, x):
    rival = x.scatter(1, given.target[:, None], -math.inf).amax(1)
    return F.relu(1 + rival - pick(x, given.target)).square()


@loss("hinge-sum")
def hinge_sum(given, x):
    return x.shape[1] * F.multi_margin_loss(x, given.target, p=2, reduction="none")


@loss("z-loss")
def z_loss(given, x):
    mean = x.mean(1, keepdim=True)
    sigma = (x - mean).square().mean(1).sqrt()
    return F.softplus(-(pick(x, given.target) - mean.squeeze(1)) / sigma)


@loss("taylor")
def taylor(given, x):
    s = 1 + x + x.square() / 2
    return s.sum(1).log() - pick(s, given.target).log()


@loss("log-spherical")
def log_spherical(given, x):
    s = x.square() + 1e-3
    return s.sum(1).log() - pick(s, given.target).log()


@loss("squared-error")
def squared_error(given, x):
    return F.mse_loss(x, one_hot(x, given.target), reduction="none").sum(1)


@loss("preference")
def preference(given, x):
    with torch.no_grad():
        pick(x, given.target) - (torch.softmax(x, 1) * x).sum(1)  # the margin
    return cross_entropy(x, given.target)


@loss("robust")
def robust(given, x, rho=8.5):
    tau = given.tau.detach().requires_grad_()
    log_k = math.log(x.shape[1])
    value = tau * cross_entropy(x / tau[:, None], given.target) + (rho - log_k) * tau
    with torch.no_grad():  # the gradient of tau
        logp = torch.log_softmax(x / tau[:, None], 1)
        -(logp.exp() * logp).sum(1) - log_k + rho
    return value


@loss("reward")
def reward(given, x, beta=0.5):
    ce = cross_entropy(x, given.target)
    return (1 - torch.exp(-ce.detach())) ** beta * ce


def shaped_reward(given, x, k, beta=0.5, top=0.1, tail=-0.1):
    logp = torch.log_softmax(x, 1)
    with torch.no_grad():
        p = logp.exp()
        best = p.topk(k, dim=1, sorted=False).indices
        w = tail * p
        w.scatter_(1, best, top * p.gather(1, best))
        w.scatter_(1, given.target[:, None], ((1 - pick(p, given.target)) ** beta)[:, None])
    return -(w * logp).sum(1)


@loss("reward-k100")
def reward_k100(given, x):
    return shaped_reward(given, x, 100)


@loss("reward-k5000")
def reward_k5000(given, x):
    return shaped_reward(given, x, 5000)


@loss("expected-reward")
def expected_reward(given, x):
    return -torch.exp(-cross_entropy(x, given.target)) * given.tau


# ---- With a matrix of numbers --------------------------------------------------------------


@loss("expected-reward-table")
def expected_reward_table(given, x):
    return -(torch.softmax(x, 1) * given.prob).sum(1)


@loss("cross-entropy-prob")
def cross_entropy_prob(given, x):
    return F.cross_entropy(x, given.prob, reduction="none")


@loss("squared-softmax-prob")
def squared_softmax_prob(given, x):
    return 0.5 * (torch.softmax(x, 1) - given.prob).square().sum(1)


@loss("stablemax-prob")
def stablemax_prob(given, x):
    s = stable(x)
    return s.sum(1).log() - (given.prob * s.log()).sum(1)  # prob sums to 1


@loss("bce")
def bce(given, x):
    return F.binary_cross_entropy_with_logits(x, given.prob, reduction="none").mean(1)


# ---- With a teacher ------------------------------------------------------------------------


def kl(logq, logp):
    return (logq.exp() * (logq - logp)).sum(1)


@loss("forward-kl")
def forward_kl(given, x):
    return kl(torch.log_softmax(given.other, 1), torch.log_softmax(x, 1))


@loss("reverse-kl")
def reverse_kl(given, x):
    return kl(torch.log_softmax(x, 1), torch.log_softmax(given.other, 1))


@loss("jensen-shannon")
def jensen_shannon(given, x):
    logp, logq = torch.log_softmax(x, 1), torch.log_softmax(given.other, 1)
    logm = torch.logaddexp(logp, logq) - math.log(2)
    return 0.5 * (kl(logq, logm) + kl(logp, logm))


@loss("kd")
def kd(given, x, tau=2.0):
    divergence = kl(torch.log_softmax(given.other / tau, 1), torch.log_softmax(x / tau, 1))
    return 0.5 * tau ** 2 * divergence + 0.5 * cross_entropy(x, given.target)


def normalised_kd(given, x, tau, gamma=1.5):
    logp, q = torch.log_softmax(x, 1), torch.softmax(given.other, 1)
    ce = -pick(logp, given.target)
    x = x.scatter(1, given.target[:, None], -1e30)
    y = given.other.scatter(1, given.target[:, None], -1e30)
    rest = -(torch.softmax(y / tau, 1) * torch.log_softmax(x / tau, 1)).sum(1)
    return (1 + pick(q, given.target)) * ce + gamma * tau ** 2 * rest


@loss("nkd")
def nkd(given, x):
    return normalised_kd(given, x, 1.0)


@loss("nkd-tau2")
def nkd_tau2(given, x):
    return normalised_kd(given, x, 2.0)


def binary_kl_of(x, y, tau=2.0):
    x, y = x / tau, y / tau
    q = torch.sigmoid(y)
    ce = F.binary_cross_entropy_with_logits(x, q, reduction="none")
    entropy = F.binary_cross_entropy_with_logits(y, q, reduction="none")
    return tau ** 2 * (ce - entropy).sum(1)


def binary_kl_normalised_of(x, y, tau=2.0):
    d = (x - y) / tau
    return tau ** 2 * (F.softplus(d) - d / 2 - math.log(2)).sum(1)


@loss("binary-kl")
def binary_kl(given, x):
    return binary_kl_of(x, given.other)


@loss("binary-kl-normalised")
def binary_kl_normalised(given, x):
    return binary_kl_normalised_of(x, given.other)


def margin_change_of(clean, perturbed, target):
    difference = perturbed - clean
    return (pick(difference, target)[:, None] - difference).square().sum(1).sqrt()


@loss("margin-change")
def margin_change(given, x):
    return margin_change_of(given.other, x, given.target)


# ---- With gradients for two matrices -------------------------------------------------------


@loss("uskd")
def uskd(given, x, v, beta=0.1, mu=0.005, smoothing=0.1):
    target = given.target[:, None]
    logp, logw = torch.log_softmax(x, 1), torch.log_softmax(v, 1)
    ce = -pick(logp, given.target)
    with torch.no_grad():
        square = torch.exp(-2 * ce)
        soft = square + 1 - square.mean()
        w = logw.exp()
        score = w / (1 - w.gather(1, target) + 1e-6)
        score += logp / (1 - logp.gather(1, target) + 1e-6)
        score.scatter_(1, target, -math.inf)
        order = score.argsort(1, descending=True)
        rank = torch.arange(1, x.shape[1] + 1, dtype=x.dtype).reciprocal().expand_as(x)
        zipf = torch.empty_like(x).scatter_(1, order, rank).scatter_(1, target, 0.0)
        zipf /= zipf.sum(1, keepdim=True)
    others = torch.log_softmax(x.scatter(1, target, -1e30), 1)
    weak = F.cross_entropy(v, given.target, reduction="none", label_smoothing=smoothing)
    return (1 + soft) * ce - beta * (zipf * others).sum(1) + mu * weak


@loss("adversarial")
def adversarial(given, clean, perturbed):
    return cross_entropy(clean, given.target) + margin_change_of(clean, perturbed,
                                                                 given.target)


@loss("dual-head")
def dual_head(given, x, auxiliary):
    teacher = x.detach()
    return cross_entropy(x, given.target) + binary_kl_normalised_of(auxiliary, teacher)
