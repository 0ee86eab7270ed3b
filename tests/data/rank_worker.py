"""One of two processes over gloo: the training batches of some sources, with and without loader processes.

python -m tests.data.rank_worker RANK STORE SOURCES.json OUT.json
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from lightning_audiorl.data import AsrDataModule, HfDataset, LhotseCuts, RowSource, TarShards
from lightning_audiorl.data.datamodules import asr
from lightning_audiorl.types import PromptBatch

KINDS: dict[str, type[RowSource]] = {
    "TarShards": TarShards,
    "HfDataset": HfDataset,
    "LhotseCuts": LhotseCuts,
}
#: One epoch of 24 rows.
NUM_STEPS = 6
BATCH_SIZE = 4


def described(batch: PromptBatch) -> list[list[str]]:
    """Id, text and hash of the samples of each row."""
    rows = []
    lengths = batch.num_samples.tolist()
    for row_id, text, wave, length in zip(
        batch.ids, batch.texts, batch.waveform, lengths, strict=True
    ):
        rows.append([row_id, text, sha256(wave[:length].numpy().tobytes()).hexdigest()])
    return rows


def epoch(source: RowSource, num_workers: int) -> list[list[list[str]]]:
    """The batches of this process, step by step."""
    data = AsrDataModule(
        train=[asr.Subset(source)], batch_size=BATCH_SIZE, seed=3, num_workers=num_workers
    )
    batches = zip(range(NUM_STEPS), data.train_dataloader(), strict=False)
    return [described(batch) for _, batch in batches]


def main(rank: str, store: str, sources: str, out: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=int(rank), world_size=2
    )
    found: dict[str, Any] = {}
    for name, (kind, settings) in json.loads(Path(sources).read_text()).items():
        source = KINDS[kind](**settings)
        found[name] = {workers: epoch(source, workers) for workers in (0, 2)}
    Path(out).write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
