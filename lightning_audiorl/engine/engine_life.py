"""An engine that is another process lives as long as the run that it samples for."""

from __future__ import annotations

from lightning import Callback, LightningModule, Trainer

from lightning_audiorl.serving import Engine


class EngineLife(Callback):
    """Ends the engine with the run, however that ends.

    Args:
        engine: of the run.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """A run has ended."""
        self.engine.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """A run has failed."""
        self.engine.close()
