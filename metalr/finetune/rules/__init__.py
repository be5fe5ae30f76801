"""Ways to set the learning rate: each is its authors' or optax's, and none is ours.

`metalr.finetune.schedulers` is the table of them. A way is a function of an optimizer,
itself a function of its rate, and of a `RunPlan`; it returns an optax transformation
with the rate of the step in its state, at `hyperparams["learning_rate"]`.
"""
