"""The loop of a run: what every algorithm shares."""
