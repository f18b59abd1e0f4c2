"""The wandb dashboard as code: a workspace with sections for losses, similarities, scores, images.

    python experiments/dashboard.py ENTITY PROJECT [GROUP_BY ...]

``GROUP_BY`` are swept parameters as in the configuration, such as ``prior.weight``: runs of one
value share a line. Needs the package wandb-workspaces, and a server and key to save it to.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

LOSSES = ("data_consistency", "semantic", "gradient_balance")
SCORES = ("psnr", "ssim", "haarpsi", "tenengrad", "tenengrad_distance", "nmse")
SIDES = ("positives", "negatives")


def workspace(
    entity: str, project: str, group_by: Sequence[str] = (), levels: Sequence[int] = (4,)
) -> Any:
    """Build the workspace; nothing is sent.

    Args:
        entity: user or team.
        project: wandb's project.
        group_by: dotted keys of the configuration.
        levels: Levels of the encoder, as ``encoder.levels``.

    Returns:
        a ``wandb_workspaces.workspaces.Workspace``.
    """
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    def lines(*names: str, x: str = "iteration") -> Any:
        return wr.LinePlot(title=names[0], x=x, y=list(names))

    sections = {
        "Losses": [lines(f"loss/{name}") for name in LOSSES],
        "Similarities": [lines(*(f"similarity/{one}/{side}" for side in SIDES)) for one in levels],
        "Scores": [wr.BarPlot(title=name, metrics=[f"score/{name}"]) for name in SCORES],
        "Images": [wr.MediaBrowser(media_keys=["image/reconstruction", "image/comparison"])],
    }
    return ws.Workspace(
        entity=entity,
        project=project,
        name="mrisem" + (f" by {', '.join(group_by)}" if group_by else ""),
        sections=[
            ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()
        ],
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config(key) for key in group_by] or [ws.Metric("JobType")]
        ),
    )


def main() -> None:
    """Save the workspace and print its address.

    Raises:
        SystemExit: where wandb knows no key.
    """
    import wandb

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("entity")
    parser.add_argument("project")
    parser.add_argument("group_by", nargs="*")
    parser.add_argument("--levels", nargs="+", type=int, default=[4])
    arguments = parser.parse_args()
    made = workspace(arguments.entity, arguments.project, arguments.group_by, arguments.levels)
    try:
        print(made.save().url)
    except wandb.errors.UsageError as error:
        raise SystemExit(f"the dashboard was not saved: {error}") from None


if __name__ == "__main__":
    main()
