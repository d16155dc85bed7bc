"""The outputs of a model and the parts of a batch: hooks on named modules, tokens, inputs and targets."""
