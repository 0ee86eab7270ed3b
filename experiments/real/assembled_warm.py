"""A projector taught by CTC, before the language model is asked: its output is compared with the LM's own embeddings.

No pass through the language model is needed, so that a step costs a hundredth of one of SFT.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import ctc_loss
from torch.nn.utils.rnn import pad_sequence

from lightning_audiorl.data import AsrDataModule
from lightning_audiorl.models import Qwen2AudioPolicy
from lightning_audiorl.ops import keyed_generator
from lightning_audiorl.types import Utterance

NUM_STEPS = 400
BATCH_SIZE = 32
LEARNING_RATE = 5e-4
#: Of logits; an embedding with itself is then well above one with another.
_SCALE = 2.0


@torch.no_grad()
def encoded(policy: Qwen2AudioPolicy, rows: Sequence[Utterance]) -> list[Tensor]:
    """The encoder's output [F, E] of each row."""
    loader = AsrDataModule()
    outputs = []
    for row in rows:
        context = policy.encode(loader.load([row]))
        outputs.append(context.features[0])
    return outputs


def warm(policy: Qwen2AudioPolicy, rows: Sequence[Utterance], folder: Path) -> dict[str, Any]:
    """Train the projector of a policy on rows and export the whole; what was seen, in plain data."""
    outputs = encoded(policy, rows)
    targets = [policy.tokenizer.encode(row.text, add_special_tokens=False) for row in rows]

    # The tokens of these texts alone; the last one is the blank, a direction of its own.
    known = sorted({token for target in targets for token in target})
    places = {token: place for place, token in enumerate(known)}
    embeddings = policy.embed.weight.detach()[known]
    blank = embeddings.std() * torch.randn(
        1, embeddings.shape[1], generator=keyed_generator("blank", 0)
    )
    blank.requires_grad_(True)

    projector = policy.model.model.multi_modal_projector
    optimizer = torch.optim.AdamW(
        [*projector.parameters(), blank], lr=LEARNING_RATE, weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, NUM_STEPS)
    generator = keyed_generator("order", 0)

    losses = []
    for _ in range(NUM_STEPS):
        drawn = torch.randperm(len(rows), generator=generator)[:BATCH_SIZE].tolist()
        logits = _logits(projector, [outputs[i] for i in drawn], embeddings, blank)
        tokens = [torch.tensor([places[token] for token in targets[i]]) for i in drawn]
        loss = ctc_loss(
            logits.log_softmax(-1).transpose(0, 1),
            torch.cat(tokens),
            torch.tensor([len(outputs[i]) for i in drawn]),
            torch.tensor([len(one) for one in tokens]),
            blank=len(known),
            zero_infinity=True,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))

    policy.export(str(folder))
    return {"losses": losses, "num_tokens": len(known), "rows": len(rows)}


def _logits(
    projector: nn.Module, outputs: list[Tensor], embeddings: Tensor, blank: Tensor
) -> Tensor:
    """[B, F, V + 1] of clips; what pads them is not computed."""
    projected = projector(torch.cat(outputs))
    logits = _SCALE * projected @ torch.cat([embeddings, blank]).T
    return pad_sequence(logits.split([len(output) for output in outputs]), batch_first=True)
