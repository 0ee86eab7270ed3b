"""What a file is that is no audio, or audio that soundfile does not know: for the message that refuses it."""

from __future__ import annotations

from pathlib import Path

from lightning_audiorl.data.sound.places import first_bytes, name_of

#: Endings of files that are taken for audio; of the second line soundfile reads none, and says how to convert it.
AUDIO_ENDINGS = frozenset(
    (
        *(".wav", ".flac", ".mp3", ".ogg", ".opus", ".sph", ".aiff", ".aif", ".au", ".caf", ".w64"),
        *(".m4a", ".aac", ".wma", ".webm", ".amr"),
    )
)
#: By how it begins: what the file is.
_BEGINNINGS = {
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself with `git lfs pull`",
    b"<!doctype html": "a web page; download the file again",
    b"<html": "a web page; download the file again",
    b"<?xml": "an XML text; download the file again",
    b"{": "a JSON text; download the file again",
    b"\x1f\x8b": "a gzip archive; unpack it",
    b"pk\x03\x04": "a zip archive; unpack it",
}
#: Containers by place and bytes.
_CONTAINERS = (
    (4, b"ftyp", "MP4 or M4A"),
    (0, b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
    (0, b"\x30\x26\xb2\x75", "Windows Media"),
    (0, b"#!AMR", "AMR"),
    (0, b"wvpk", "WavPack"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"ADIF", "AAC"),
    (0, b"FLV", "Flash video"),
    (0, b".snd", "AU"),
    (0, b"RIFF", "WAV or AVI"),
)


def kind_of(path: str) -> str | None:
    """What a file is that holds no audio for soundfile, and what to do with it; None where that is not seen.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.wav"
        ...     _ = path.write_bytes(b"")
        ...     kind_of(str(path))
        'it is empty; restore the file or remove the row'
    """
    head = first_bytes(path, 512)
    if not head:
        return "it is empty; restore the file or remove the row"

    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, kind in _BEGINNINGS.items():
        if text.startswith(beginning):
            return f"it is {kind}"

    for place, mark, name in _CONTAINERS:
        if head[place : place + len(mark)] == mark:
            return f"it is {name}; {convert_to_flac(path)}"
    # The 12 bits that begin a frame of AAC, with a layer of 0.
    if head[0] == 0xFF and head[1:2] and head[1] & 0xF6 == 0xF0:
        return f"it is AAC; {convert_to_flac(path)}"

    if _is_text(head):
        return "it is text; correct the path or remove the row"
    if not any(head):
        return "it begins with zeros where a header should be; restore the file or remove the row"
    return None


def convert_to_flac(path: str) -> str:
    """How to convert a file.

    Example:
        >>> convert_to_flac("clips/a.m4a")
        'convert it: ffmpeg -i a.m4a a.flac'
    """
    name = Path(name_of(path))
    new = f"{name.stem}.flac"
    # A file cannot be converted onto itself.
    if new == name.name:
        new = f"{name.stem}.wav"
    return f"convert it: ffmpeg -i {name.name} {new}"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("ascii")
    except UnicodeDecodeError:
        return False
    return all(char.isprintable() or char in "\t\r\n" for char in text)
