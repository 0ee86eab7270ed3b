"""Each family's export decodes as the policy does where nothing of this library, nor Lightning, can be imported.

AUDIORL_FRESH_PYTHON names the python of a real environment of transformers, torch and soundfile alone; without it, the
imports are refused in a process of this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from transformers import AutoProcessor

from tests.models.families import batch_of, disturb, make
from tests.models.records import RECORDS
from tests.models.test_export import greedy
from tests.models.test_tts_parity import greedy as greedy_speech
from tests.models.tts_records import TTS_RECORDS, csm_inputs, prompt_ids
from tests.models.tts_records import batch_of as speech_batch
from tests.models.tts_records import make as make_speech

FAMILIES = ["fun_asr_nano", "whisper", *RECORDS]
SCRIPTS = Path(__file__).parent / "fresh"
# A name that is None in there raises when it is imported.
WITHOUT = (
    "import runpy, sys; "
    "sys.modules.update(dict.fromkeys(('lightning_audiorl', 'lightning', 'peft'))); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
pytestmark = pytest.mark.slow


def run_fresh(script: str, folder: Path) -> None:
    """Run one of `SCRIPTS` on a folder, without this library."""
    python = os.environ.get("AUDIORL_FRESH_PYTHON")
    command = [python] if python else [sys.executable, "-I", "-c", WITHOUT]
    command += [str(SCRIPTS / script), str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[str], list[str]]]:
    """By family, what its policy says of some clips, and what transformers makes of its export."""
    folder = tmp_path_factory.mktemp("fresh")
    batch = batch_of(list("abcd"))
    (folder / "clips").mkdir()
    for row, wave, num in zip(batch.rows, batch.waveform, batch.num_samples, strict=True):
        clip = wave[: int(num)].numpy()
        soundfile.write(folder / "clips" / f"{row.id}.wav", clip, 16000, subtype="FLOAT")

    said = {}
    for family in FAMILIES:
        policy = make(family)
        disturb(policy)
        policy.export(str(folder / family))
        said[family] = greedy(policy, batch)

    run_fresh("decode.py", folder)
    decoded = json.loads((folder / "decoded.json").read_text())
    assert decoded.keys() == said.keys()
    return {family: (said[family], decoded[family]) for family in FAMILIES}


@pytest.mark.cell("export")
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_alone_decodes_it_alike(
    family: str, texts: dict[str, tuple[list[str], list[str]]]
) -> None:
    said, decoded = texts[family]
    assert len(set(said)) > 1, f"this compares next to nothing: {said}"
    assert decoded == said


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Any], list[Any]]]:
    """By family, the codes that its policy speaks, and those that transformers makes of its export."""
    folder = tmp_path_factory.mktemp("speech")
    said = {}
    for family in TTS_RECORDS:
        policy = make_speech(family)
        disturb(policy)
        policy.export(str(folder / family))
        batch = speech_batch(family, list("abc"))
        said[family] = greedy_speech(policy, batch)

        asked = []
        for number in range(len(batch)):
            one = batch.select([number])
            if family == "csm":
                processor = AutoProcessor.from_pretrained(folder / family)
                asked.append(dict(csm_inputs(processor, one)))
            else:
                ids = prompt_ids(policy, one)
                asked.append({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        torch.save(asked, folder / family / "inputs.pt")

    run_fresh("speak.py", folder)
    spoken = json.loads((folder / "spoken.json").read_text())
    return {family: (said[family], spoken[family]) for family in said}


@pytest.mark.cell("export")
@pytest.mark.parametrize("family", list(TTS_RECORDS))
def test_transformers_alone_speaks_alike(
    family: str, codes: dict[str, tuple[list[Any], list[Any]]]
) -> None:
    said, spoken = codes[family]
    assert len({json.dumps(row) for row in said}) > 1, f"this compares next to nothing: {said}"
    assert spoken == said


def test_the_process_cannot_import_this_library(tmp_path: Path) -> None:
    script = tmp_path / "imports.py"
    script.write_text("import lightning_audiorl\n")
    ended = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT, str(script)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "import of lightning_audiorl halted" in ended.stderr
