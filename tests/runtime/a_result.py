"""The result of a run, as it lies in its folder."""

RESULT = {
    "task": "sst2",
    "model": "minilm",
    "data": {"kind": "toy"},
    "weights": {"kind": "package"},
    "scheduler": "linear",
    "seed": 0,
    "settings": {},
    "versions": {},
    "metric": "accuracy",
    "metrics": {"accuracy": 0.9},
    "last_metrics": {"accuracy": 0.8},
    "best_step": 2,
    "steps": 4,
    "seconds": 1.5,
    "notes": ["größer"],
    "history": [{"step": 2, "epoch": 0.5, "loss": 0.3, "learning_rate": 2e-5}],
}
