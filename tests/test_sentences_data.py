"""The recordings of the miniature on sentences: one vocabulary everywhere, and rows that come out the same."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest
import yaml

from experiments.sentences_data import GRAMMAR, VOICES, row, speak, unprompted
from lightning_audiorl.data.corpora.grammar import sentence_part

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs" / "tts" / "sentences"

#: Stands for flite: a tone, longer where the voice is stretched, at the rate that the environment names.
PROGRAM = """#!{python}
import sys
import numpy as np
import soundfile

arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
stretch = float(arguments["--setf"].partition("=")[2])
rate_hz = 8000 if arguments["-voice"] == "slow" else 16000
soundfile.write(arguments["-o"], np.zeros(int(1000 * stretch), np.int16), rate_hz, subtype="PCM_16")
"""


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "flite"
    path.write_text(PROGRAM.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_the_model_knows_the_words_of_the_sentences_and_token2text_their_voices() -> None:
    sft = yaml.safe_load((CONFIGS / "sft.yaml").read_text())
    words = sft["model"]["init_args"]["policy"]["init_args"]["init_from"]["init_args"]["words"]
    assert tuple(words) == GRAMMAR.words

    token2text = yaml.safe_load((CONFIGS / "token2text.yaml").read_text())
    labels = token2text["model"]["init_args"]["network"]["init_args"]["labels"]
    assert labels == {"speaker": sorted(VOICES)}


def test_a_row_is_the_same_on_each_call_and_of_its_part(tmp_path: Path, program: str) -> None:
    (tmp_path / "audio").mkdir()
    first = row(program, tmp_path, "dev", 3)
    assert row(program, tmp_path, "dev", 3) == first
    assert sentence_part(first["text"]) == "dev"
    assert (tmp_path / first["audio_filepath"]).is_file()
    assert unprompted(first)["target"] == {
        "audio_filepath": first["audio_filepath"],
        "duration": first["duration"],
    }


def test_a_program_that_is_missing_or_speaks_at_another_rate_is_named(
    tmp_path: Path, program: str
) -> None:
    with pytest.raises(RuntimeError, match=r"'no-such-flite' is not there; install flite"):
        speak("no-such-flite", "open the box", "slt", 1.1, tmp_path / "a.flac")
    with pytest.raises(RuntimeError, match=r"voice slow came at 8000 Hz"):
        speak(program, "open the box", "slow", 1.1, tmp_path / "a.flac")
