#!/usr/bin/env python3
"""Draws the figures of papers that were re-run.

    build/bench/papers --json results.json
    python3 bench/papers/plot.py results.json [docs/figures]

For each paper with figures: NN-slug.svg, its panels side by side, and NN-slug.json, what they were
drawn from. Needs matplotlib (Debian: python3-matplotlib); without it writes the JSON alone.
"""
import json
import pathlib
import sys

try:
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
except ImportError:
    plt = None

MARKERS = "os^vDPX*"


def draw_panel(axes, figure):
    for i, series in enumerate(figure["series"]):
        nan = float("nan")
        x = [nan if v is None else v for v in series["x"]]
        y = [nan if v is None else v for v in series["y"]]
        line = "none" if figure["points"] else "-"
        axes.plot(x, y, linestyle=line, marker=MARKERS[i % len(MARKERS)], markersize=3.5,
                  linewidth=1.2, label=series["name"])
    if figure["log_x"]:
        axes.set_xscale("log", base=2 if powers_of_2(figure) else 10)
    if figure["log_y"]:
        axes.set_yscale("log")
    axes.set_title(figure["title"], fontsize=10)
    axes.set_xlabel(figure["x_label"])
    axes.set_ylabel(figure["y_label"])
    axes.grid(True, which="major", linewidth=0.4, alpha=0.6)
    if len(figure["series"]) > 1:
        axes.legend(fontsize=8)


def powers_of_2(figure):
    values = [v for series in figure["series"] for v in series["x"] if v]
    return all(v >= 1 and v == int(v) and int(v) & (int(v) - 1) == 0 for v in values)


def draw(paper, path):
    figures = paper["figures"]
    columns = min(3, len(figures))
    rows = -(-len(figures) // columns)
    canvas, axes = plt.subplots(rows, columns, figsize=(4.6 * columns, 3.6 * rows), squeeze=False)
    flat = [a for row in axes for a in row]
    for a, figure in zip(flat, figures):
        draw_panel(a, figure)
    for a in flat[len(figures):]:
        a.axis("off")
    canvas.suptitle("%02d  %s" % (paper["number"], paper["title"]), fontsize=11)
    canvas.tight_layout()
    # No date and fixed ids: the same figures make the same file.
    canvas.savefig(path, format="svg", metadata={"Date": None})
    plt.close(canvas)


def main(arguments):
    if len(arguments) not in (1, 2):
        sys.exit(__doc__)
    results = json.loads(pathlib.Path(arguments[0]).read_text())
    default = pathlib.Path(__file__).resolve().parents[2] / "docs" / "figures"
    folder = pathlib.Path(arguments[1]) if len(arguments) == 2 else default
    folder.mkdir(parents=True, exist_ok=True)
    if plt is None:
        print("plot.py: no matplotlib here (Debian: python3-matplotlib): the JSON alone is written")
    else:
        plt.rcParams["svg.hashsalt"] = "softlogit"
        plt.rcParams["svg.fonttype"] = "none"
    for paper in results["papers"]:
        if not paper["figures"]:
            continue
        path = folder / ("%02d-%s.svg" % (paper["number"], paper["slug"]))
        kept = {"quick": results["quick"], "machine": results.get("machine"), "paper": paper}
        path.with_suffix(".json").write_text(json.dumps(kept, indent=1) + "\n")
        if plt is not None:
            draw(paper, path)
            print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
