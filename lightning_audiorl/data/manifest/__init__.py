"""Manifests: the schema of a row, files of rows, and what a source of rows is."""

from __future__ import annotations

from lightning_audiorl.data.manifest.files import (
    IndexedManifest,
    ManifestRows,
    iter_manifest,
    read_manifest,
    write_manifest,
)
from lightning_audiorl.data.manifest.schema import ManifestError, parse_row, to_json

__all__ = [
    "IndexedManifest",
    "ManifestError",
    "ManifestRows",
    "iter_manifest",
    "parse_row",
    "read_manifest",
    "to_json",
    "write_manifest",
]
