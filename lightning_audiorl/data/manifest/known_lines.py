"""Lines of a manifest that were checked before: read again in a third of the time, for streams of millions of rows."""

from __future__ import annotations

from typing import Any

import msgspec

from lightning_audiorl.data.manifest.json_lines import filled
from lightning_audiorl.data.manifest.schema import KNOWN, PREFIX, full_path
from lightning_audiorl.data.sound.places import INSIDE
from lightning_audiorl.types import Origin, Segment, Utterance

_DECODER = msgspec.json.Decoder(dict[str, Any])


def known_row(
    line: bytes, where: str, folder: str, default_id: str, may_skip: bool, lang: str
) -> Utterance | None:
    """What `parse_row` made of this line when it was checked; None where the line is not of the common kind.

    Args:
        line: one line of the manifest, which has not changed since.
        where: "file, line 3".
        folder: what relative paths are taken from.
        default_id: of a row that names none.
        may_skip: whether the row may be left out later.
        lang: of a row that names none.

    Example:
        >>> from lightning_audiorl.data.manifest.schema import parse_row
        >>> line = b'{"audio_filepath": "a.wav", "text": "good morning", "duration": 1.5, "room": "hall"}'
        >>> known = known_row(line, "m.jsonl, line 1", "/clips", "m:1", may_skip=False, lang="en")
        >>> known == parse_row(line, "m.jsonl, line 1", "/clips", "m:1", allow_empty_text=False, check_files=False)
        True
    """
    try:
        fields = _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # A byte order mark stands before the first line of some files; Python's own reader knows Infinity, too.
        return None
    seconds = fields.get("duration")
    name = fields.get("audio_filepath")
    if seconds is None or name is None or "segments" in fields or "gap" in fields:
        return None
    if name.startswith(INSIDE):
        return None

    duration_s = float(seconds)
    segment = {
        "audio_filepath": name if name.startswith(PREFIX) else full_path(folder, name),
        "duration_s": duration_s,
        "offset_s": float(fields.get("offset") or 0.0),
        "gap_s": 0.0,
    }

    keywords = fields.get("keywords")
    effects = fields.get("effects")
    # All fields of a row, as `filled` wants them.
    row = {
        "id": fields.get("id", default_id),
        "segments": (filled(Segment, segment),),
        "text": fields["text"],
        "duration_s": duration_s,
        "lang": fields.get("lang") or lang,
        "speaker": fields.get("speaker", ""),
        "keywords": tuple(keywords) if keywords else (),
        "effects": tuple(effects) if effects else (),
        "extra": {} if fields.keys() <= KNOWN else _others(fields),
        "spoken_text": fields.get("spoken_text"),
        "origin": Origin(where, may_skip),
    }
    return filled(Utterance, row)


def _others(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields without a place of their own, in the line's order."""
    return {key: value for key, value in fields.items() if key not in KNOWN}
