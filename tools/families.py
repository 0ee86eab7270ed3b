"""Write docs/families.md: which families of models load, train and go back, as the tests end.

A test says which column it shows, and is parametrised by the family:

    @pytest.mark.cell("export")
    @pytest.mark.parametrize("family", FAMILIES)
    def test_an_export_is_the_classes_own_folder(family): ...

python -m tools.families            # are the page's cells those of the tests?
python -m tools.families --write    # run the tests, and write how they ended
"""

from __future__ import annotations

import importlib
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
PAGE = ROOT / "docs" / "families.md"

#: The page's columns, in its order. A test's mark names one of them.
COLUMNS = ("loads", "GRPO", "LoRA", "shared prefix", "plan", "export")
#: Those of families that transcribe.
TEXT_COLUMNS = (*COLUMNS, "hotwords")
#: Those of families that speak.
SPEECH_COLUMNS = (*COLUMNS, "DiffRO")
_ALL_COLUMNS = tuple(dict.fromkeys([*TEXT_COLUMNS, *SPEECH_COLUMNS]))


@dataclass(frozen=True)
class Row:
    """A family that has a policy.

    Args:
        name: as its makers write it.
        policy: class of the policy.
        config: its YAML file in configs/.
        notes: what its own classes do otherwise in a batch, and what is done about it.
        without: reasons by column: what the family cannot have.
    """

    name: str
    policy: str
    config: str
    notes: str
    without: Mapping[str, str] = field(default_factory=dict)


ROWS = {
    "fun_asr_nano": Row(
        "Fun-ASR-Nano",
        "FunAsrNanoPolicy",
        "fun_asr_nano.yaml",
        "Its adaptor ignores the padding unless sdpa is set, which the policy does. Hotwords are the keywords of its "
        "processor's request.",
    ),
    "whisper": Row(
        "Whisper",
        "WhisperPolicy",
        "whisper.yaml",
        "Each clip is padded to 30 s. The stop token may come first: the answer to a clip without speech is the empty "
        "text. Hotwords stand behind `<|startofprev|>`, in at most half of the decoder's positions less one; of a "
        "longer list the first words are taken, and how many are left out is counted and said.",
    ),
    "qwen3_asr": Row(
        "Qwen3-ASR",
        "Qwen3ASRPolicy",
        "qwen3_asr.yaml",
        "Its processor counts one frame more for some clips beside a longer one, and its parsing takes a loop for one "
        "word: clips are read one by one, and decoded as they are. The text of a row whose language the model does not "
        "know begins with `language None`, as in its makers' recipe. Hotwords are what its makers call context, the "
        "system's message.",
    ),
    "granite_speech": Row(
        "Granite-Speech",
        "GraniteSpeechPolicy",
        "granite_speech.yaml",
        "Its encoder knows no padding: clips of one length go through it together, others apart, in eval mode always. "
        "Its own adapter is merged at the start, and so is in the reference and in the export; the text-only mode of "
        "the base wants the base's folder. `export: {adapter: true}` leaves what RL trained as an adapter beside the "
        "merged start; to generate with it its class in transformers 5.24 asks for a peft that is not released (0.22), "
        "and `PeftModel` does not. Logits are divided by `logits_scaling`, which its class leaves out. A row with "
        "hotwords is asked as the model cards from granite-4.0-1b-speech on ask.",
    ),
    "qwen2_audio": Row(
        "Qwen2-Audio",
        "Qwen2AudioPolicy",
        "qwen2_audio.yaml",
        "Clips beyond 30 s are refused: its processor cuts them without a word. Its model card has no form for "
        "hotwords: they want an instruction of yours (`hotwords: 'Transcribe the speech. Keywords: {hotwords}'`).",
    ),
    "glm_asr": Row(
        "GLM-ASR",
        "GlmAsrPolicy",
        "glm_asr.yaml",
        "Windows of 30 s, as its processor cuts them; clips beyond 630 s are refused, where it cuts and speaks of 655. "
        "Hotwords as of Qwen2-Audio.",
    ),
    "voxtral": Row(
        "Voxtral",
        "VoxtralPolicy",
        "voxtral.yaml",
        "A clip is padded to whole windows of 30 s, 375 tokens each. The request for a transcript is made of the "
        "tokenizer's control tokens, as mistral-common makes it; the tests have a tokenizer of transformers; tried by "
        "hand with mistral-common 1.13.1, the request is that of its own processor, token for token.",
        {"hotwords": "its transcription request is the clip, the language and control tokens"},
    ),
    "canary": Row(
        "Canary",
        "CanaryPolicy",
        "canary.yaml",
        "The decoder attends to each clip's own frames; the encoder stays in eval mode. A language that it does not "
        "know is refused by the row's name.",
        {
            "hotwords": "its prompt is control tokens alone, and its processor writes no text into it"
        },
    ),
    "moonshine": Row(
        "Moonshine",
        "MoonshinePolicy",
        "moonshine.yaml",
        "Its group norm reads the padding, and its mask is two frames too long: each clip is encoded as if it were "
        "alone, together with those of its very length. It knows one language and is not told which.",
        {"hotwords": "its decoder begins with one token, and was never given a text before it"},
    ),
}

#: Families that speak.
SPEECH_ROWS = {
    "llasa": Row(
        "Llasa",
        "SpeechLMPolicy",
        "llasa.yaml",
        "Its chat format writes the day's date into each prompt; ours is always the same. Xcodec2 makes n // 320 + 1 "
        "codes of n samples: clips are encoded one by one, and counted as it counts.",
    ),
    "neutts": Row(
        "NeuTTS",
        "SpeechLMPolicy",
        "neutts.yaml",
        "NeuCodec's mask for a batch counts samples of another rate: clips are encoded one by one. It reads phonemes: "
        "what judges are to hear stands in `spoken_text`.",
    ),
    "cosyvoice2": Row(
        "CosyVoice 2's language model",
        "SpeechLMPolicy",
        "cosyvoice2.yaml",
        "Its head has a bias, which `AutoModelForCausalLM` drops without an error: `AnyCausalLM` loads an export with "
        "it. Its codec is a class of yours; the test has one that makes tones.",
    ),
    "csm": Row(
        "CSM",
        "CsmPolicy",
        "csm.yaml",
        "The first code of a frame learns, the depth decoder follows, frozen: see "
        "[tts.md](tts.md#several-codes-at-once). Its `generate` ends speech at a frame whose codes are all 0 but for "
        "the last, which may be another; a first code of 0 alone is a sound. The policy ends there, too, and that "
        "frame is not heard. Mimi encodes clip by clip. Settings of the depth decoder in a `generation_config.json` "
        "that says it was made of the model's configuration are not read; an export does not say so.",
        {
            "DiffRO": "a point between tokens would be of the first code alone, and what is heard is the whole frame"
        },
    ),
}

#: Families of transformers that have no policy, and why.
REASONS = {
    "Parakeet": "A CTC or a transducer says a text along the frames, not token by token after a prompt: GRPO as it is "
    "has no log-probability of a hypothesis to raise. `TransformersJudge` takes both as judges. So it is with every "
    "other CTC (wav2vec 2.0, HuBERT) and transducer.",
    "Kyutai STT, Voxtral Realtime": "They write a token for each frame while the clip goes on, most of them padding: "
    "no prompt comes before the hypothesis that a group could share.",
    "Granite-Speech Plus, VibeVoice-ASR, MOSS Transcribe-Diarize, Omnilingual ASR, Audio Flamingo 3, Phi-4-multimodal, "
    "Qwen2.5-Omni": "Of the kind that `AudioPromptPolicy` takes; what their classes do in a batch has not been looked "
    "at yet.",
    "Moonshine Streaming, Cohere ASR, Speech2Text, SeamlessM4T": "Of the kind that `UnevenClipsPolicy` takes; what "
    "their classes do in a batch has not been looked at yet. `TransformersJudge` has them as judges, `kind: seq2seq`.",
}

_HEAD = """\
# Families of models

Which families load, train and go back. Each cell is shown by a test on a tiny model of the family's own class with its
own processor; no published checkpoint was trained for it. `python -m tools.families --write` runs the tests, which are
named below, and writes this page. `make test-slow` runs the whole matrix of tests/models on each family: every mode of
finetuning, a start that is an adapter folder, batches beside clips alone, killed and resumed bit for bit, a toy reward
that rises over 20 steps. Log-probabilities are those of a family's own forward within 1e-4 a token and 1e-5 on average
in float32; in bfloat16 rollout and update are within .1 of each other. An export is decoded alike by transformers where
this library cannot be imported.

[your_checkpoint.md](your_checkpoint.md) goes from a checkpoint to a first run and back, [new_family.md](new_family.md)
from a class of transformers to a row of this table.
"""


@dataclass
class Outcomes:
    """A plugin of pytest's that keeps how the tests of each cell ended.

    Attributes:
        failed: by family and column, whether any test did.
    """

    failed: dict[tuple[str, str], bool] = field(default_factory=dict)
    _cells: dict[str, tuple[str, str]] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        for item in items:
            mark = item.get_closest_marker("cell")
            if mark is not None:
                self._cells[item.nodeid] = (item.callspec.params["family"], *mark.args)

    def pytest_runtest_logreport(self, report: Any) -> None:
        cell = self._cells.get(report.nodeid)
        if cell is not None and (report.when == "call" or report.failed):
            self.failed[cell] = self.failed.get(cell, False) or not report.passed


def marked() -> dict[tuple[str, str], list[str]]:
    """The tests of each cell, by family and column.

    Raises:
        ValueError: for a mark that names no column, or a test that is not parametrised by the family.
    """
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        if "mark.cell(" not in path.read_text(encoding="utf-8"):
            continue
        where = path.relative_to(ROOT)
        module = importlib.import_module(".".join(where.with_suffix("").parts))
        for name, function in vars(module).items():
            marks = {mark.name: mark.args for mark in getattr(function, "pytestmark", ())}
            if name.startswith("test") and "cell" in marks:
                for cell in _cells_of(marks, f"{where}::{name}"):
                    found[cell].append(f"{where}::{name}")
    return dict(found)


def _cells_of(marks: dict[str, Any], test: str) -> list[tuple[str, str]]:
    (column,) = marks["cell"]
    if column not in _ALL_COLUMNS:
        raise ValueError(f"{test}: no column {column!r}; there are {', '.join(_ALL_COLUMNS)}")
    name, values = marks.get("parametrize", ("", ()))
    if name != "family":
        raise ValueError(f"{test}: a test of a cell is parametrised by the family alone")
    # Of a slow one, what pytest.param holds.
    families = [getattr(value, "values", (value,))[0] for value in values]
    return [(family, column) for family in families]


def page(tests: dict[tuple[str, str], list[str]], failed: dict[tuple[str, str], bool]) -> str:
    """The page's text.

    Args:
        tests: of each cell.
        failed: whether one of them did; a cell without an entry was not run.
    """
    lines = [_HEAD, *_table(ROWS, TEXT_COLUMNS, tests, failed)]
    lines += ["", "## Families that speak", "", *_table(SPEECH_ROWS, SPEECH_COLUMNS, tests, failed)]

    lines += ["", "## What their own classes do otherwise, and what is done about it", ""]
    rows = [*ROWS.values(), *SPEECH_ROWS.values()]
    lines += [f"- **{row.name}**: {row.notes}" for row in rows]
    lines += ["", "## Cells without a test", ""]
    for row in rows:
        lines += [f"- **{row.name}, {column}**: {why}." for column, why in row.without.items()]
    lines += ["", "## Families without a policy", ""]
    lines += [f"- **{name}**: {reason}" for name, reason in REASONS.items()]
    lines += ["", "## The tests", "", "| Column | Tests |", "|---|---|"]
    for column in _ALL_COLUMNS:
        names = sorted(
            {name for (_, other), own in tests.items() for name in own if other == column}
        )
        lines.append(f"| {column} | {', '.join(f'`{name}`' for name in names)} |")
    return "\n".join(lines) + "\n"


def _table(
    rows: Mapping[str, Row],
    columns: Sequence[str],
    tests: dict[tuple[str, str], list[str]],
    failed: dict[tuple[str, str], bool],
) -> list[str]:
    """Lines of a table of families; see `page`."""
    words = {None: "not run", True: "fails", False: "yes"}
    head = f"| Family | {' | '.join(columns)} | Configuration |"
    lines = [head, "|---" * (len(columns) + 2) + "|"]
    for family, row in rows.items():
        cells = []
        for column in columns:
            cell = words[failed.get((family, column))] if (family, column) in tests else "no test"
            cells.append("no, see below" if column in row.without else cell)
        config = f"[{row.config}](../configs/{row.config})"
        lines.append(f"| {row.name} (`{row.policy}`) | {' | '.join(cells)} | {config} |")
    return lines


def run() -> dict[tuple[str, str], bool]:
    """How the tests of the cells end now."""
    import pytest

    outcomes = Outcomes()
    files = sorted({name.partition("::")[0] for names in marked().values() for name in names})
    pytest.main(["-q", "-p", "no:cacheprovider", "-m", "cell", *files], plugins=[outcomes])
    return outcomes.failed


def main(arguments: list[str]) -> int:
    tests = marked()
    if "--write" in arguments:
        PAGE.write_text(page(tests, run()), encoding="utf-8")
    # Every cell has a test, and each of them passed when the page was written.
    expected = page(tests, dict.fromkeys(tests, False))
    wanted = []
    for rows, columns in ((ROWS, TEXT_COLUMNS), (SPEECH_ROWS, SPEECH_COLUMNS)):
        for family, row in rows.items():
            wanted += [(family, column) for column in columns if column not in row.without]
    is_whole = all(cell in tests for cell in wanted)
    if not is_whole or not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != expected:
        print(
            "docs/families.md is not what the tests show: python -m tools.families --write",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))
