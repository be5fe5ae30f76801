"""Rows for the zoo: tables, images and texts, drawn or of scikit-learn."""

from typing import Any

import numpy as np

from metalr.meta.zoo.problem import ROWS, Rows, choose


def table(shape: np.random.Generator, rng: np.random.Generator) -> tuple[Rows, int]:
    """Return a table with classes: of scikit-learn's sets, or generated."""
    from sklearn import datasets

    x: Any
    y: Any
    name = choose(
        shape, "wine", "breast_cancer", "iris", "made", "made", "made", "moons"
    )
    if name == "made":
        classes = int(choose(shape, 2, 5, 10))
        x, y = datasets.make_classification(
            ROWS,
            n_features=32,
            n_informative=16,
            n_classes=classes,
            n_clusters_per_class=2,
            class_sep=float(rng.uniform(0.5, 2)),
            flip_y=float(rng.choice([0.0, 0.05, 0.2])),
            random_state=int(rng.integers(2**31)),
        )
    elif name == "moons":
        classes = 2
        x, y = datasets.make_moons(
            ROWS,
            noise=float(rng.uniform(0.05, 0.4)),
            random_state=int(rng.integers(2**31)),
        )
    else:
        found = getattr(datasets, f"load_{name}")()
        x, y, classes = found.data, found.target, len(found.target_names)
        order = rng.permutation(len(x))
        x, y = x[order], y[order]
    x = (x - x.mean(0)) / (x.std(0) + 1e-6)
    return {"x": x.astype(np.float32), "y": y.astype(np.int32)}, classes


def images(rng: np.random.Generator, classes: int, side: int = 12) -> Rows:
    """Draw gratings and blobs: the class is the pattern's angle or place."""
    y = rng.integers(classes, size=ROWS)
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1) / side - 0.5
    angle = np.pi * (y + 0.3 * rng.normal(size=ROWS)) / classes
    wave = 2 * np.pi * rng.uniform(1, 3, ROWS)
    along = (
        grid[..., 0][None] * np.cos(angle)[:, None, None]
        + grid[..., 1][None] * np.sin(angle)[:, None, None]
    )
    x = np.sin(wave[:, None, None] * along + rng.uniform(0, 6, ROWS)[:, None, None])
    x = x + float(rng.choice([0.2, 0.5, 1.0])) * rng.normal(size=x.shape)
    return {"x": x[..., None].astype(np.float32), "y": y.astype(np.int32)}


def texts(rng: np.random.Generator, length: int) -> Rows:
    """Cut generated sentences into windows of characters."""
    from metalr.data import toy

    seed, task = (
        int(rng.integers(2**31)),
        choose(rng, "sst2", "qnli", "ag_news", "cola"),
    )
    drawn = toy.generate(task, "train", 800, seed)
    texts = [value for row in drawn for value in row.values() if isinstance(value, str)]
    text = "\n".join(texts).lower()
    codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8)
    ids = np.where((codes >= 32) & (codes < 128), codes - 32, 0).astype(np.int32)
    starts = rng.integers(0, len(ids) - length - 1, ROWS)
    return {"ids": ids[starts[:, None] + np.arange(length + 1)[None]]}
