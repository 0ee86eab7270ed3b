"""One thread per process: tiny models gain nothing from more, and lose much where the machine is busy."""

from __future__ import annotations

import os

import torch

os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
