"""One thread per process: tiny models gain nothing from more, and lose much where the machine is busy.

AUDIORL_TEST_THREADS chooses another number (`make test-portable`); processes that a test starts inherit it.
"""

from __future__ import annotations

import os

import torch

THREADS = os.environ.get("AUDIORL_TEST_THREADS", "1")

# A process that a test starts is compared with this one: both variables, whatever the shell has set.
os.environ["OMP_NUM_THREADS"] = THREADS
os.environ["MKL_NUM_THREADS"] = THREADS
torch.set_num_threads(int(THREADS))
