"""What a model puts out and a batch holds: hooks on named modules, tokens, inputs and targets."""
