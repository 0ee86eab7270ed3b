"""The parts of build_ratio.py: what is timed, the workers that take the steps, and the ratio with its interval."""
