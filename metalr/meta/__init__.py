"""Where the predictor comes from: traces of fine-tunes, labels, the fit."""
