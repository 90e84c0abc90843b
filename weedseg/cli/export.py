"""``weedseg export``: write the model file of a run and prove that it is right."""

from __future__ import annotations

import typer

from weedseg.cli import options


def export(run: options.RunPath) -> None:
    """Export a run's network to model.onnx; refuses to write one that differs from it.

    Raises:
        WeedsegError: The run is not trained yet, or the exported model differs.
    """
    from weedseg.pipeline.run import reopen
    from weedseg.pipeline.stages import describe_stage, export_stage

    opened = reopen(run)
    figures = export_stage(opened)
    describe_stage(opened)
    typer.echo(
        f"{opened.folder.model}: {100 * figures['equal_share']:.4f} % of {figures['pixels']} pixels "
        f"as in torch, largest difference of logits {figures['max_dlogit']:.2g}, "
        f"{figures['weed_photos']} of {figures['photos']} photos with at least 1 % weed"
    )
