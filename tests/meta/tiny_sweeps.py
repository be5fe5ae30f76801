"""A sweep of the zoo of a few peaks and steps."""

from metalr.meta.zoo import sweeps

STEPS = 21


def tiny(kind="linear", **changes):
    """Return a sweep of a few peaks and steps."""
    sweep = sweeps.draw(0, seed=7)
    changes = {
        "kind": kind,
        "optimizer": "adamw",
        "horizon": STEPS,
        "batch": 8,
        "warmup": 2,
        "peaks": 3,
        "octaves": 4.0,
        "clip": 1.0,
    } | changes
    return sweep._replace(**changes)
