"""Prometheus folders and FDS's own output, told by their files, and settings that read them."""

from pathlib import Path
from typing import Any

from s2kd.core.types import S2KDError
from s2kd.data import prometheus
from s2kd.data._environments import EXTREMES
from s2kd.data._fds_input import parameters_of, sidecar_of
from s2kd.data._fds_slices import channel_name, planes_of
from s2kd.data._fds_smv import read_smokeview
from s2kd.data._fds_volume import least_gap
from s2kd.data._known import Known
from s2kd.data._prometheus_layout import NAME, files_of, header, layout_of
from s2kd.data._prometheus_layout import parameters_of as given
from s2kd.data.fds_slices import median_step, runs_of, stored_run

HELD_OUT = ("heat_release", "ventilation")
"""Parameters to hold environments out by, the first that has three values or more."""


def fires(path: Path) -> Known | None:
    """What is at `path`, if it is one of these."""
    if path.is_dir():
        try:
            files_of(path, None)
        except S2KDError:
            return fds(path) if any(path.glob("*.smv")) or any(path.glob("*/*.smv")) else None
        return prometheus_folder(path)
    if NAME.fullmatch(path.name):
        return prometheus_folder(path.parent)
    return fds(path) if path.suffix in (".smv", ".sf") else None


def prometheus_folder(path: Path) -> Known:
    """Every environment's shape; the problems of those that are not whole."""
    files, arrays, problems = files_of(path, None), {}, []
    for name, file in files.items():
        try:
            arrays[name] = tuple(map(str, header(file).shape))
        except S2KDError as error:
            problems.append(str(error))
    whole = {name: files[name] for name in arrays}
    params: dict[str, Any] = {"path": str(path)}
    if problems:
        params["environments"] = list(whole)
    found = None
    try:
        if whole:
            layout = layout_of(next(iter(whole.values())).parent, whole)
            params["unseen"] = _unseen({name: given(layout, name) for name in whole})
            found = prometheus.prometheus(**params, memory_gb=0)
    except S2KDError as error:
        problems.append(str(error))
    return Known(
        kind="Prometheus folder",
        part="prometheus",
        reason="one simulated fire a file",
        params=params,
        arrays=arrays,
        problems=tuple(problems),
        ready=found is not None,
        frames=0 if found is None else found.frames.shape[0],
        step_seconds=0.0 if found is None else found.grid.step_seconds,
        height=0 if found is None else found.grid.height,
        width=0 if found is None else found.grid.width,
    )


def fds(path: Path) -> Known:
    """The plane with the most quantities of every run, as one dataset."""
    path = path.parent if path.suffix == ".sf" else path
    kind, reason = "FDS slices", "slice files of FDS, joined over meshes"
    params: dict[str, Any] = {"path": str(path)}
    arrays: dict[str, tuple[str, ...]] = {}
    try:
        runs = {name: read_smokeview(smv) for name, smv in runs_of(path).items()}
        planes = planes_of(next(iter(runs.values())).slices)
        for place, entries in planes.items():
            listed = dict.fromkeys(channel_name(entry.quantity) for entry in entries)
            arrays[place] = tuple(listed)
        best = max(arrays, key=lambda place: len(arrays[place])) if len(planes) > 1 else None
        stored = {name: stored_run(run, best, None) for name, run in runs.items()}
        params |= {"plane": best} if best else {}
        sidecar = sidecar_of(path if path.is_dir() else path.parent)
        unseen = _unseen({n: parameters_of(run.path, n, sidecar) for n, run in runs.items()})
        params |= {"unseen": unseen} if unseen else {}
        every = [run.times for run in stored.values()]
        step = median_step(stored)
        gap = max(least_gap(times, step) for times in every)
        params |= {"gap": gap} if gap > 10 else {}
    except S2KDError as error:
        return Known(
            kind=kind, part="fds_slices", reason=reason, problems=(str(error),), ready=False
        )
    height, width = next(iter(stored.values())).planes[0].shape
    return Known(
        kind=f"{kind}, {len(runs)} run{'s' * (len(runs) > 1)}",
        part="fds_slices",
        reason=reason,
        params=params,
        arrays=arrays,
        problems=tuple(notice for run in stored.values() for notice in run.notices),
        frames=sum(map(len, every)),
        step_seconds=step,
        height=height,
        width=width,
    )


def _unseen(parameters: dict[str, dict[str, float]]) -> dict[str, str]:
    """The setting `unseen` that fits: the extremes of what is known of all and varies enough."""
    for name in HELD_OUT:
        values = {known.get(name) for known in parameters.values()}
        if None not in values and len(values) >= 3:
            return {name: EXTREMES}
    return {}
