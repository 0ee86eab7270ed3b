"""An instruction in a row's own field stands where CosyVoice 2 reads it; formats without a place for one refuse it."""

from __future__ import annotations

import pytest
from transformers import AddedToken

from lightning_audiorl.models.tts.templates import CosyVoice2Template, PlainTemplate
from tests.models.test_speech_templates import KINDS, codes_as_text, cosyvoice_tokenizer


@pytest.mark.fault(
    "Text",
    "an instruction for CosyVoice 2, which its control token in a text would be refused for",
    "is the row's field `instruction`; a template without a place for one refuses it by name",
)
def test_an_instruction_stands_before_its_control_token() -> None:
    tokenizer = cosyvoice_tokenizer()
    tokenizer.add_tokens([AddedToken("<|endofprompt|>", special=True)])
    published = f"<|sos|>她说<|endofprompt|>收到好友<|task_id|>{codes_as_text([])}"
    ids = CosyVoice2Template().prompt_ids(tokenizer, "收到好友", instruction="她说")
    assert ids == tokenizer.encode(published, add_special_tokens=False)

    with pytest.raises(ValueError, match="has no place for an instruction"):
        PlainTemplate().prompt_ids(KINDS["plain"][1], "two", instruction="one")
    with pytest.raises(ValueError, match=r"no token '<.endofprompt.>'"):
        CosyVoice2Template().prompt_ids(KINDS["cosyvoice2"][1], "收到", instruction="她说")
