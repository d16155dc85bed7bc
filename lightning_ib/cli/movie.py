"""``lightning-ib movie``: the information plane as a film, a frame for each measurement."""

from __future__ import annotations

import math
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning_ib.cli.console import say
from lightning_ib.cli.errors import UsageError
from lightning_ib.cli.pictures import checked_path
from lightning_ib.cli.runs import Run, in_one_unit, read_runs
from lightning_ib.records.files import replacing

FORMATS = (".mp4", ".gif")
_DPI = 110
_MOST_FPS_OF_GIF = 50
_HOLD = 1.5
"""For how many seconds the last frame stays."""


def movie(arguments: Namespace) -> int:
    """Film a run: its paths grow in axes that stay.

    Raises:
        UsageError: the run or an option is wrong, or ffmpeg is missing.
    """
    path = checked_path(arguments.output or "plane.gif", FORMATS)
    fps = arguments.fps
    if not (math.isfinite(fps) and 0 < fps <= 60):
        raise UsageError(f"--fps must be above 0 and at most 60, got {fps:g}.")
    if path.suffix.lower() == ".gif" and fps > _MOST_FPS_OF_GIF:
        raise UsageError(
            f"--fps {fps:g} is too much for a GIF, which players show at most {_MOST_FPS_OF_GIF}: use .mp4."
        )
    read = read_runs([arguments.run], say, arguments.layers, target=arguments.target)
    runs = in_one_unit(read, arguments.unit, say)
    if len(runs) > 1:
        raise UsageError(f"{arguments.run} holds several runs: give one of {', '.join(str(run.file) for run in runs)}.")
    writer = _writer(path, fps)
    _film(runs[0], path, writer, max(1, round(_HOLD * fps)))
    print(f"film: {path}")
    return 0


def _writer(path: Path, fps: float) -> Any:
    """Matplotlib's writer for the format of a file."""
    from matplotlib.animation import FFMpegWriter, PillowWriter

    if path.suffix.lower() == ".gif":
        return PillowWriter(fps=fps)  # type: ignore[arg-type]
    if not FFMpegWriter.isAvailable():
        raise UsageError(
            f"-o {path} needs ffmpeg, which is not on the path: install it (apt install ffmpeg, brew install ffmpeg), "
            f"or give -o {path.with_suffix('.gif')}."
        )
    # Players want this pixel format, and even sides.
    return FFMpegWriter(fps=fps, extra_args=["-pix_fmt", "yuv420p", "-vf", "crop=trunc(iw/2)*2:trunc(ih/2)*2"])  # type: ignore[arg-type]


def _film(run: Run, path: Path, writer: Any, n_last: int) -> None:
    from lightning_ib.evaluation.passes import with_bar
    from lightning_ib.plot import plot_information_plane

    points, estimates = run.history.points(), run.history.estimates()
    about_target = any(math.isfinite(point.i_ty) for point in points)
    drawn = [p for p in points if math.isfinite(p.i_xt) and (math.isfinite(p.i_ty) or not about_target)]
    times = sorted({getattr(point, run.by) for point in drawn})
    figures = (plot_information_plane(points, estimates, run.name, until=time) for time in times)
    try:
        with replacing(path) as partial:
            # The writers go by the suffix.
            whole = partial.with_name(f"{path.stem}.partial{path.suffix}")
            try:
                for k, figure in enumerate(with_bar(figures, "Frames", len(times))):
                    if k == 0:
                        writer.setup(figure, str(whole), dpi=_DPI)
                    writer.fig = figure
                    for _ in range(n_last if k == len(times) - 1 else 1):
                        writer.grab_frame()
                writer.finish()
                whole.replace(partial)
            finally:
                whole.unlink(missing_ok=True)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"-o {path} cannot be written: {error.strerror or error}.") from error
