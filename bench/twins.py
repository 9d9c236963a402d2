#!/usr/bin/env python3
"""Held-out loss of the quickstart's mixture, its outputs summed, against its dense twins, at equal training tokens, over several seeds.

    bench/twins.py [--seeds 1,2,3] [--jobs 2] [--out runs/twins] [key=value ...]

Every run is `switchyard train RECIPE seed=S output=OUT/NAME-S [key=value ...]`; a run folder that is complete is
read, not trained again; --jobs runs that many at once, each on its share of the cores. The recipes are copied to OUT
first, so that all runs of one comparison read the same text. Prints one row a recipe (mean, lowest, highest of the last
held-out loss) and whether the mixture beats the twin of equal active parameters by more than the spread over seeds.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RECIPES = {
    "mixture": "recipes/twins/mixture.yaml",
    "dense, equal active": "recipes/twins/dense-active.yaml",
    "dense, equal total": "recipes/twins/dense-total.yaml",
}


def last_evaluation(folder):
    """(step, loss) of the last evaluation that the run wrote, or None."""
    found = None
    metrics = folder / "metrics.jsonl"
    if metrics.exists():
        for line in metrics.read_text().splitlines():
            row = json.loads(line)
            if row.get("eval"):
                found = row["step"], row["loss"]
    return found


def run(name, recipe, seed, options):
    folder = pathlib.Path(options.out) / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    if not (folder / "done").exists():
        command = [options.program, "train", str(pathlib.Path(options.out) / recipe), f"seed={seed}", f"output={folder}", *options.overrides]
        if (folder / "recipe.yaml").exists():
            command = [options.program, "resume", str(folder)]
        print("$", " ".join(command), file=sys.stderr, flush=True)
        environment = dict(os.environ)
        if options.jobs > 1:
            environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // options.jobs))
        subprocess.run(command, check=True, env=environment)
        (folder / "done").write_text("")
    evaluation = last_evaluation(folder)
    if evaluation is None:
        sys.exit(f"{folder} holds no evaluation; set train.evaluate_every")
    return evaluation


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", default="runs/twins")
    parser.add_argument("--program", default=str(ROOT / "build/bin/switchyard"))
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args()
    seeds = [int(s) for s in options.seeds.split(",")]
    recipes = pathlib.Path(options.out) / "recipes"
    if not recipes.exists():
        shutil.copytree(ROOT / "recipes", recipes)

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:  # seed by seed, so that a stopped comparison is a fair one
        runs = [(name, pool.submit(run, name, recipe, seed, options)) for seed in seeds for name, recipe in RECIPES.items()]
        losses = {name: [] for name in RECIPES}
        for name, one in runs:
            losses[name].append(one.result())

    print("| model | held-out loss, mean | lowest | highest | steps |")
    print("| --- | --- | --- | --- | --- |")
    for name, rows in losses.items():
        values = [loss for _, loss in rows]
        print(f"| {name} | {sum(values) / len(values):.4f} | {min(values):.4f} | {max(values):.4f} | {rows[0][0]} |")
    mixture = [loss for _, loss in losses["mixture"]]
    active = [loss for _, loss in losses["dense, equal active"]]
    gap = sum(active) / len(active) - sum(mixture) / len(mixture)
    spread = max(max(mixture) - min(mixture), max(active) - min(active))
    print(f"\nThe mixture is {gap:+.4f} better than the twin of equal active parameters; the spread over seeds is {spread:.4f}.")
    return 0 if gap > spread else 1


if __name__ == "__main__":
    sys.exit(main())
