"""How a policy samples and scores: cache, shared prefix, sampling loop."""
