"""RL data: which subsets make a mix, its building, writing and summary."""
