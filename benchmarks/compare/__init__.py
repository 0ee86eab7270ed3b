"""The parts of compare_builds.py: scenarios as YAML files, a worker for either build, and the comparison."""
