"""The rooms of the house: what each holds, and what its modules may import. The one table of them.

    python -m tools.rooms            prints the table of docs/architecture.md
    python -m tools.rooms --write    puts it there

A test holds every import to it, and the page to what is printed here.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
BEGIN = "<!-- rooms: begin; written by `python -m tools.rooms --write` -->"
END = "<!-- rooms: end -->"


@dataclass(frozen=True)
class Room:
    """A folder or module of the package, and what it may import besides the standard library and itself.

    Args:
        holds: in a few words.
        inside: rooms and modules of the package, separated by spaces.
        outside: other packages, separated by spaces.
    """

    holds: str
    inside: str = ""
    outside: str = ""

    @property
    def rooms(self) -> tuple[str, ...]:
        """The names in ``inside``."""
        return tuple(self.inside.split())

    @property
    def packages(self) -> tuple[str, ...]:
        """The names in ``outside``."""
        return tuple(self.outside.split())


# A module belongs to the room with the longest name that fits: folders of a folder are rooms too, with arrows that
# point one way like those of the house. losses/ and engine/ see the modules of models/ that know no family of models.
ROOMS = {
    "checks": Room("what the number of a setting may be"),
    "finite": Room("weights that are NaN or infinite end a training", "ops", "torch lightning"),
    "fields": Room("shapes of dataclass fields; select, join and move by prompt", "", "torch"),
    "types": Room("the dataclasses on the arrows", "checks fields", "torch"),
    "speech_activity": Room(
        "where speech is heard in a clip: silero-vad's network and weights",
        "checks",
        "torch torchaudio",
    ),
    "languages": Room("the one table of languages: their codes and names"),
    "outline": Room("models made of their configuration alone, for plans", "", "torch"),
    "weights": Room(
        "reading models and checkpoints: what is damaged, incomplete or another model is refused by name",
        "",
        "torch transformers safetensors peft yaml",
    ),
    "ops": Room(
        "advantages, objectives, log-probs, KL, relaxation, masks, randomness",
        "checks fields types",
        "torch",
    ),
    "text": Room(
        "normalisation, error counts, hallucination and keyword rules",
        "checks languages",
        "jiwer rapidfuzz transformers wetext num2words zhconv",
    ),
    "codecs": Room(
        "speech as codes: the interface, a tiny trainable codec, those of transformers, an adapter",
        "checks finite fields types ops outline weights",
        "torch torchaudio transformers safetensors lightning",
    ),
    "judges": Room(
        "what a judge of speech is, the panel that asks each of them once per step, pitch",
        "checks text types",
        "torch torchaudio",
    ),
    "judges.models": Room(
        "the models that judge: recognisers, speaker encoders, quality predictors",
        "checks types ops models.policy judges.base languages judges.silence judges.transcript weights",
        "torch torchaudio torchmetrics transformers huggingface_hub speechbrain safetensors onnxruntime pocketsphinx",
    ),
    "judges.training": Room(
        "training of our own judges",
        "checks finite text types ops codecs judges.models",
        "torch torchaudio lightning",
    ),
    "token2text": Room(
        "the network that DiffRO differentiates: codes to text and labels; training, calibration",
        "checks text types ops codecs judges models.reference",
        "torch lightning",
    ),
    "metrics": Room(
        "`specs.py`, the table of every metric; alignment and validation metrics, those of speech",
        "checks text types ops speech_activity judges",
        "torch torchmetrics jiwer",
    ),
    "rewards": Room(
        "one reward per class, the weighted mix, differentiable rewards",
        "checks text types models.policy judges token2text",
        "torch rapidfuzz",
    ),
    "models": Room(
        "the policy's interface, finetuning modes, the reference, loading",
        "checks fields types ops codecs outline weights",
        "torch transformers tokenizers peft safetensors",
    ),
    "models.decoding": Room(
        "loading, sampling, caches, the shared prefix: what families of models have in common",
        "fields types ops languages weights models.policy models.finetune models.encoder_cache models.export "
        "models.loading models.tiny_base",
        "torch transformers",
    ),
    "models.asr": Room(
        "families that transcribe, one file each, its tiny model in it",
        "checks fields types languages weights models.policy models.finetune models.encoder_cache "
        "models.export models.loading models.tiny_base models.decoding",
        "torch transformers",
    ),
    "models.tts": Room(
        "families that speak, and what they share",
        "checks fields types codecs models.policy models.finetune models.loading models.tiny_base models.decoding",
        "torch torchaudio transformers",
    ),
    "data": Room("the door to the folders below; the only reader of training data"),
    "data.sound": Room(
        "sound files: true lengths and exact stretches, whatever their headers say",
        "",
        "numpy soundfile",
    ),
    "data.manifest": Room(
        "rows: their schema, their files, where they come from",
        "checks types languages text data.sound",
        "msgspec",
    ),
    "data.audio": Room(
        "reading, content hashes, effects, augmentation, non-speech",
        "checks types languages ops data.sound data.manifest data.draws",
        "torch torchaudio soxr",
    ),
    "data.layouts": Room(
        "data sets of other layouts, one file each: read as rows, written as manifests, used in place",
        "checks types languages data.sound data.manifest",
        "datasets pyarrow",
    ),
    "data.transforms": Room(
        "rows joined, cut, repeated and padded; words that their prompts name",
        "checks types ops text data.draws data.manifest data.audio",
        "torch",
    ),
    "data.corpora": Room(
        "corpora that are read or made: FSDD, espeak, texts to be spoken",
        "checks types ops data.draws data.manifest data.audio data.transforms languages",
        "torch torchaudio soundfile numpy espeakng_loader",
    ),
    "data.hypotheses": Room(
        "hypotheses as JSON lines, read and written",
        "types text data.manifest.json_lines",
        "numpy msgspec",
    ),
    "data.mix.selection": Room(
        "rules that choose the rows of a subset",
        "checks types ops text speech_activity data.manifest data.audio data.corpora data.hypotheses",
        "torch",
    ),
    "data.mix": Room(
        "RL sets: subsets and their shares, built once",
        "checks types data.sound.places data.manifest data.audio data.hypotheses data.mix.selection",
        "numpy lightning",
    ),
    "data.datamodules": Room(
        "the LightningDataModules, batches, the training order",
        "checks types ops data.draws data.manifest data.audio data.corpora data.hypotheses data.mix "
        "data.transforms.hotwords",
        "torch lightning",
    ),
    "strategies": Room(
        "`RLStrategy`; where parts live in each phase, never what they compute",
        "checks types",
        "torch lightning",
    ),
    "serving": Room(
        "where completions come from: our own sampler, or vLLM in a process of its own",
        "checks types ops weights models.policy models.decoding",
        "torch transformers safetensors vllm",
    ),
    "losses": Room(
        "what an algorithm is: a loss knows neither rank nor phase nor strategy",
        "checks fields types ops rewards models.policy models.reference",
        "torch",
    ),
    "losses.diffro": Room(
        "DiffRO: relaxation, unrolling, its sample filters",
        "checks fields types ops rewards losses models.policy models.reference",
        "torch",
    ),
    "engine": Room(
        "the loop: stages, micro-batches, ranks, optimizer, evaluation, checkpoints; once",
        "checks finite types ops losses metrics rewards judges.base judges.panel strategies weights serving "
        "models.policy models.reference models.finetune models.encoder_cache",
        "torch torchmetrics transformers lightning",
    ),
    "algorithms": Room(
        "SFT, GRPO, DiffRO, both together: the loop with the losses that make it one of these",
        "checks types ops metrics rewards judges.base losses engine serving models.policy",
        "torch",
    ),
    "reports": Room(
        "what came out of runs: rows of evaluations, paired intervals, verdicts, web pages, runs side by side",
        "checks text types ops metrics",
        "torch jinja2 soundfile",
    ),
    "callbacks": Room(
        "progress, samples, checkpoints, hacking watch, early stopping, report, export",
        "checks text types metrics models.policy reports strategies weights __version__",
        "torch torchaudio torchmetrics lightning tensorboard numpy matplotlib soundfile yaml",
    ),
    "commands.plan": Room(
        "`audiorl plan`: peak memory and moving cost of a run, traced on tensors without values",
        "checks types ops outline models strategies serving engine algorithms",
        "torch lightning jsonargparse yaml",
    ),
}
_FOLDERS = " ".join(name for name in ROOMS if "." not in name)
ROOMS |= {
    "commands": Room(
        "commands beside Lightning's own: `assemble`, `calibrate`, `export`, `manifest`, `plan`, `predict`, `report`",
        _FOLDERS,
        "torch transformers lightning",
    ),
    "locks": Room("a file that one living process holds"),
    "run_folder": Room(
        "the folder of a run: its own, held, in its settings",
        "callbacks engine locks weights",
        "lightning jsonargparse",
    ),
    "evaluation_folder": Room(
        "the folder of an evaluation, in that of the run",
        "run_folder",
        "lightning jsonargparse",
    ),
    "run_end": Room("how a command ends for the shell", "callbacks", "lightning"),
    "training": Room(
        "a run, from the command line or from Python: trainer, callbacks, folder",
        f"{_FOLDERS} run_end run_folder",
        "lightning jsonargparse",
    ),
    "setting_names": Room("misspelt names in YAML, found in the source of the classes"),
    "command_line": Room(
        "what `audiorl` answers before torch is imported", "setting_names", "yaml"
    ),
    "screen": Room(
        "what the command line prints where something went wrong",
        "command_line",
        "lightning jsonargparse",
    ),
    "cli": Room(
        "`audiorl`; nobody imports it",
        f"{_FOLDERS} command_line commands evaluation_folder run_end run_folder screen training",
        "torch lightning jsonargparse",
    ),
    "moved": Room("old names of modules, which go on working"),
    "": Room("the package itself", "moved"),
    "__main__": Room("`audiorl` and `python -m lightning_audiorl`", "cli command_line"),
}


def table() -> str:
    """The rooms as Markdown."""
    lines = [
        "| room | holds | may import, besides itself and the standard library |",
        "|---|---|---|",
    ]
    for name, room in ROOMS.items():
        inside = (
            "every room above"
            if room.inside.startswith(_FOLDERS)
            else room.inside.replace(" ", ", ")
        )
        allowed = "; ".join(part for part in (inside, room.outside.replace(" ", ", ")) if part)
        lines.append(f"| `{name or 'lightning_audiorl'}` | {room.holds} | {allowed or 'nothing'} |")
    return "\n".join(lines)


def page_with_table(page: str) -> str:
    """The page with the table between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write it to docs/architecture.md")
    if parser.parse_args().write:
        PAGE.write_text(page_with_table(PAGE.read_text()))
    else:
        print(table())


if __name__ == "__main__":
    main()
