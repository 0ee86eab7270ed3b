"""The engine's process, which forgets what the file AUDIORL_FAULT names. Runs in vLLM's environment."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

# By its path: nothing of this project is installed there.
_SPEC = importlib.util.spec_from_file_location("engine_process", os.environ["AUDIORL_PROCESS"])
assert _SPEC is not None
assert _SPEC.loader is not None
process = importlib.util.module_from_spec(_SPEC)
sys.modules["engine_process"] = process
_SPEC.loader.exec_module(process)


class Careless(process.Vllm):  # type: ignore[name-defined,misc]
    """vLLM, with pushes that do too little."""

    def push(self, folder: str) -> None:
        fault = Path(os.environ["AUDIORL_FAULT"]).read_text()
        if fault == "no reload":
            return
        if fault == "no reset":
            self.llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})
            return
        super().push(folder)


if __name__ == "__main__":
    process.main(Careless())
