#!/usr/bin/env python3
"""Draws what `peers --json FILE` wrote: how much faster the library is than each peer, and how
far from the floor.

    plot_peers.py FILE.json [OUT.svg]
"""
import json
import os
import sys
import tempfile

COLOURS = {"plain": "#888888", "onednn": "#1f77b4", "xnnpack": "#2ca02c", "torch": "#d62728",
           "torch-autograd": "#d62728", "torch-kernels": "#ff9896", "torch-foreach": "#ff9896",
           "two-pass": "#bcbd22", "recompute": "#dbdb8d", "reload": "#9467bd"}


def speedups(axis, workloads):
    """A group of bars a workload, one a peer; log scale, 1 is the library."""
    here = {c["name"] for w in workloads for c in w["candidates"]}
    peers = [p for p in COLOURS if p in here]
    width = 0.8 / max(1, len(peers))
    for i, peer in enumerate(peers):
        at, height = [], []
        for j, w in enumerate(workloads):
            for c in w["candidates"]:
                if c["name"] == peer and c["ratio"] and not c["wrong"]:
                    at.append(j + (i - (len(peers) - 1) / 2) * width)
                    height.append(c["ratio"])
        axis.bar(at, [h - 1 for h in height], width, bottom=1, label=peer, color=COLOURS[peer])
    axis.axhline(1, color="black", linewidth=0.8)
    axis.set_yscale("log")
    axis.set_ylabel("time of peer / ours")
    axis.legend(ncol=5, fontsize=8, loc="upper right")


def floors(axis, workloads):
    """Ours / floor, with the bar that the goal asks for."""
    for j, w in enumerate(workloads):
        goals = [g for g in w["goals"] if g["kind"] == "at_most" and g["value"]]
        for k, g in enumerate(goals):
            x = j + (k - (len(goals) - 1) / 2) * 0.4
            met = g["value"] <= g["bar"]
            axis.bar(x, g["value"], 0.36, color="#2ca02c" if met else "#d62728")
            axis.plot([x - 0.2, x + 0.2], [g["bar"]] * 2, color="black")
            axis.text(x, g["value"], g["of"], rotation=90, fontsize=7, ha="center", va="bottom")
    axis.axhline(1, color="black", linewidth=0.8)
    axis.set_ylabel("ours / floor (line: goal)")


def main(argv):
    if len(argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    os.environ.setdefault("MPLCONFIGDIR", tempfile.gettempdir())
    try:
        import matplotlib
    except ImportError:
        print("plot_peers.py: skipped: python3-matplotlib is not installed")
        return 0
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "softlogit"  # the same figures, the same file
    import matplotlib.pyplot as plt

    with open(argv[1], encoding="utf-8") as f:
        data = json.load(f)
    workloads = [w for w in data["workloads"] if w["candidates"]]
    machine = data["machine"]
    figure, axes = plt.subplots(2, 1, sharex=True, figsize=(4 + 0.8 * len(workloads), 10))
    speedups(axes[0], workloads)
    floors(axes[1], workloads)
    axes[1].set_xticks(range(len(workloads)), [w["name"] for w in workloads], rotation=60,
                       ha="right", fontsize=8)
    axes[0].set_title(f"libsoftlogit {machine['version']} ({machine['isa']}), {machine['cpu']}, "
                      f"BLAS core {machine['blas_core']}"
                      + (", QUICK: not at full size" if data["quick"] else ""))
    figure.tight_layout()
    out = argv[2] if len(argv) == 3 else os.path.splitext(argv[1])[0] + ".svg"
    figure.savefig(out, metadata={"Date": None})
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
