"""Speech from text by espeak-ng, in this process, the same samples every time.

The wheel ``espeakng-loader`` (extra ``synth``, GPL-3.0, loaded at run time) carries the library and its voices. The
library keeps state between calls that no call of its interface resets: saying a sentence twice gives two lengths. So
each call loads it afresh, seeds its noise and unloads it, which makes the samples a function of the arguments alone.
"""

from __future__ import annotations

import ctypes
import difflib
import importlib
import os
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 22050

# Values of the library's header, speak_lib.h.
_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000
_UTF8 = 1
_RATE = 1
_VOLUME = 2
_PITCH = 3
_RANGE = 4

_RATE_LIMITS = (80, 450)
_PITCH_LIMITS = (0, 99)
#: Of a language whose voice file names no priority, as in the library.
_DEFAULT_PRIORITY = 5
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_lock = threading.Lock()


def synthesise(
    text: str, voice: str = "en-us", rate_wpm: int = 170, pitch: int = 50
) -> NDArray[np.float32]:
    """Speak ``text``.

    One call runs at a time (the library is global to the process); other threads wait. Processes forked between
    calls are independent: nothing stays loaded.

    Args:
        text: what to say, in the language of the voice.
        voice: a language code or voice file, with an optional variant: ``en-us``, ``en-gb-scotland+f2``, ``cmn``.
        rate_wpm: speed in words per minute, 80 to 450.
        pitch: 0 to 99.

    Returns:
        [n] float32 samples in [-1, 1) at ``SAMPLE_RATE_HZ``.

    Raises:
        ImportError: the wheel is not installed.
        ValueError: unknown voice, number out of range, or text that has nothing to say.
        RuntimeError: the library reports an error, or another package holds it loaded.
    """
    _check_number("rate_wpm", rate_wpm, _RATE_LIMITS)
    _check_number("pitch", pitch, _PITCH_LIMITS)
    if "\0" in text:
        raise ValueError("synthesise: text holds a NUL character; remove it")

    settings = {_RATE: rate_wpm, _VOLUME: 100, _PITCH: pitch, _RANGE: 50}
    with _lock:
        # C strings end with a NUL.
        c_text = text.encode() + b"\0"
        c_voice = resolve_voice(voice).encode()
        pcm = _speak(c_text, c_voice, settings)

    samples = np.frombuffer(pcm, np.int16)
    if not samples.any():
        raise ValueError(
            f"synthesise: voice {voice!r} said nothing for the text {text!r}; give text it can read"
        )
    return samples.astype(np.float32) / 32768.0


def _check_number(name: str, value: int, limits: tuple[int, int]) -> None:
    low, high = limits
    if not low <= value <= high:
        raise ValueError(f"synthesise: want {low} <= {name} <= {high}, got {value}")


def resolve_voice(voice: str) -> str:
    """The library's own name of a voice, which is that of its file: ``en-gb+m1`` -> ``en+m1``.

    Raises:
        ImportError: the wheel is not installed.
        ValueError: no such language or variant, with near ones named.
    """
    base, plus, variant = voice.partition("+")
    language = base.lower()
    languages, variants = voice_names()
    if language not in languages:
        raise ValueError(_unknown("voice", language, voice, list(languages)))
    if plus and variant not in variants:
        raise ValueError(_unknown("variant", variant, voice, list(variants)))
    return languages[language] + plus + variant


@cache
def voice_names() -> tuple[dict[str, str], tuple[str, ...]]:
    """Language codes (lower case) with the voice file that speaks each, and the variants that may follow a ``+``."""
    data = Path(_loader().get_data_path())
    everything = (data / "lang").rglob("*")
    files = sorted(path for path in everything if path.is_file())
    ranked: list[tuple[int, int, str, str]] = []
    for path in files:
        for code, priority in _languages_of(path):
            ranked.append((-priority, -len(path.name), code, path.name))

    # Of several files for a language the library takes the lowest number; of equals the plainest name is taken here.
    # The best is sorted last, and the last one stays.
    languages = {code: name for _, _, code, name in sorted(ranked)}
    languages |= {path.name.lower(): path.name for path in files}

    variants = data / "voices" / "!v"
    names = sorted(path.name for path in variants.iterdir())
    return languages, tuple(names)


def _languages_of(path: Path) -> list[tuple[str, int]]:
    """Language codes (lower case) and priorities of the lines ``language en-gb 2`` in a voice file."""
    found: list[tuple[str, int]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "language":
            code = words[1].lower()
            has_priority = len(words) > 2 and words[2].isdigit()
            priority = int(words[2]) if has_priority else _DEFAULT_PRIORITY
            found.append((code, priority))
    return found


def _unknown(kind: str, name: str, voice: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or known[:5]
    names = ", ".join(near)
    return f"espeak-ng has no {kind} {name!r} (asked for voice {voice!r}); near ones: {names}"


def _loader() -> Any:
    try:
        return importlib.import_module("espeakng_loader")
    except ImportError as error:
        raise ImportError(
            "espeak-ng speech needs an extra package: pip install 'lightning-audiorl[synth]'"
        ) from error


def _speak(text: bytes, voice: bytes, settings: dict[int, int]) -> bytes:
    """16-bit samples of one utterance, from a library that is loaded for it alone."""
    chunks: list[bytes] = []

    def collect(samples: int | None, count: int, _events: int | None) -> int:
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    # Held in a variable: the library keeps a pointer to it, which does not keep it alive.
    callback = _Callback(collect)
    library = _load()
    try:
        data = os.fsencode(_loader().get_data_path())
        rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DONT_EXIT)
        if rate_hz != SAMPLE_RATE_HZ:
            raise RuntimeError(f"espeak_Initialize: expected {SAMPLE_RATE_HZ} Hz, got {rate_hz}")

        library.espeak_SetSynthCallback(callback)
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        if sys.platform != "win32":
            # A few variants (Reed, caleb) take their noise from the C library's rand().
            library.srand(1)

        _check("espeak_SetVoiceByName", library.espeak_SetVoiceByName(voice))
        for parameter, value in settings.items():
            status = library.espeak_SetParameter(parameter, value, 0)
            _check("espeak_SetParameter", status)

        size = ctypes.c_size_t(len(text))
        status = library.espeak_Synth(text, size, 0, 0, 0, _UTF8, None, None)
        _check("espeak_Synth", status)
        library.espeak_Terminate()
    finally:
        _unload(library)
    return b"".join(chunks)


def _check(call: str, status: int) -> None:
    if status != 0:
        raise RuntimeError(f"espeak-ng: {call} returned status {status}; reinstall espeakng-loader")


def _load() -> ctypes.CDLL:
    """The library, loaded by this call; RuntimeError where somebody else holds it, with state that we cannot reset."""
    path = _loader().get_library_path()
    if sys.platform != "win32":
        # NOLOAD finds a library only if it is loaded already.
        try:
            ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        except OSError:
            pass
        else:
            raise RuntimeError(
                f"{path} is already loaded by another package of this process: samples would not repeat"
            )
    return ctypes.CDLL(path)


def _unload(library: ctypes.CDLL) -> None:
    import _ctypes

    if sys.platform == "win32":
        _ctypes.FreeLibrary(library._handle)
    else:
        _ctypes.dlclose(library._handle)
