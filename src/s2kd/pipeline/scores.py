"""Stages `evaluate` and `report`: every model of a run on the test splits, and the run's page."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xarray as xr

import s2kd
from s2kd.core.errors import S2KDError
from s2kd.core.files import check_seal, digest, json_text, read_json, write_json
from s2kd.core.hardware import hardware, latency, versions
from s2kd.core.recipe import Method, Part
from s2kd.core.saved import load_metadata
from s2kd.data.windows import WindowDataset
from s2kd.evaluation import results
from s2kd.evaluation.compare import TEACHER_METHODS
from s2kd.evaluation.rollout import roll_out
from s2kd.evaluation.score import (
    SCORES_VERSION,
    Predict,
    climatology_forecast,
    persistence,
    score,
)
from s2kd.models.checkpoint import load_student, load_teacher
from s2kd.models.forecasters import FramesOnly, Student, Teacher
from s2kd.models.given import GivenTeacher
from s2kd.models.layers import parameter_count
from s2kd.pipeline.distil import student_folder
from s2kd.pipeline.narratives import narratives
from s2kd.pipeline.run import Run
from s2kd.pipeline.teach import teacher_folder
from s2kd.training.objectives import predict

REFERENCES = ("persistence", "climatology")


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """One forecaster to be scored.

    `key` is a digest of its weights, `fields` are coordinates of its scores (`results.FIELDS`);
    `load` is None for references.
    """

    name: str
    key: str
    fields: dict[str, Any]
    load: Callable[[], Student | Teacher | GivenTeacher] | None = None


def evaluated_models(run: Run) -> Iterator[EvaluatedModel]:
    """References, teachers and students of a run."""
    yield from references()
    if any(method.teacher == "given" for method in run.recipe.methods):
        yield evaluated_given(run)
    for seed in run.recipe.seeds:
        for kind in run.teacher_kinds:
            yield evaluated_teacher(run, kind, seed)
        for method in run.recipe.methods:
            for part in run.recipe.students:
                yield evaluated_student(run, part, method, seed)


def references() -> Iterator[EvaluatedModel]:
    """Persistence and climatology."""
    for name in REFERENCES:
        fields = {"backbone": name, "role": "reference", "method": name, "seed": None}
        yield EvaluatedModel(name=name, key=name, fields=fields)


def evaluated_given(run: Run) -> EvaluatedModel:
    """The teacher that was given, and not trained here."""
    teacher = run.given_teacher
    fields = {
        "backbone": teacher.name,
        "role": "teacher",
        "method": TEACHER_METHODS["given"],
        "seed": None,
        "narrator": "none",
        "parameters": parameter_count(teacher),
    }
    name, key = "teacher-given", teacher.digest
    return EvaluatedModel(name=name, key=key, fields=fields, load=lambda: teacher)


def evaluated_teacher(run: Run, kind: str, seed: int) -> EvaluatedModel:
    """A trained teacher of the run."""
    folder, backbone = teacher_folder(run, kind, seed), run.recipe.teacher.backbone.name
    fields = {"backbone": backbone, "role": "teacher", "method": TEACHER_METHODS[kind]}
    return _trained(run, folder, {**fields, "seed": seed}, lambda: load_teacher(folder)[0])


def evaluated_student(run: Run, part: Part, method: Method, seed: int) -> EvaluatedModel:
    """A trained student of the run."""
    folder = student_folder(run, part, method, seed)
    narrator = run.recipe.narrator.name if method.teacher == "text" else "none"
    fields = {"backbone": part.name, "role": "student", "method": method.name}
    fields |= {"seed": seed, "narrator": narrator}
    return _trained(run, folder, fields, lambda: load_student(folder)[0])


def _trained(
    run: Run, folder: Path, fields: dict[str, Any], load: Callable[[], Student | Teacher]
) -> EvaluatedModel:
    metadata = _own_metadata(run, folder)
    names = ("narrator", "parameters", "validation")
    fields = {**{name: metadata[name] for name in names if name in metadata}, **fields}
    prefix = "teacher-" if fields["role"] == "teacher" else ""
    name, key = f"{prefix}{folder.name}", metadata["weights"]
    return EvaluatedModel(name=name, key=key, fields=fields, load=load)


def _own_metadata(run: Run, folder: Path) -> dict[str, Any]:
    """The metadata of a model of this run; S2KDError where the data have changed since."""
    metadata, fingerprint = load_metadata(folder), run.dataset.fingerprint
    if metadata.get("fingerprint", fingerprint) != fingerprint:
        raise S2KDError(
            f"{folder}: was trained on other data (fingerprint {metadata['fingerprint']}) than "
            f"{run.recipe.dataset.name!r} gives now ({fingerprint}); put the data back, or train "
            "it again with `s2kd compare`"
        )
    return metadata


# --- scores --------------------------------------------------------------------------------------


def evaluate(run: Run, *, horizon: int = 0) -> dict[str, xr.Dataset]:
    """Score persistence, climatology, every teacher and every student on the test splits.

    With a `horizon` of 2 or more also roll-outs to so many times the lead (`rollout.roll_out`),
    except of teachers that read: nobody narrates their forecasts. Returns the scores by split.
    """
    if horizon < 0 or horizon == 1:
        raise S2KDError(f"--horizon {horizon}: wants at least 2 lead times, or 0 for no roll-out")
    run.horizon = horizon or run.horizon
    scores: dict[str, xr.Dataset] = {}
    run.first_only(lambda: scores.update(_evaluate(run)))
    return scores


def _evaluate(run: Run) -> dict[str, xr.Dataset]:
    scores = {}
    for split in run.test_splits:
        path = _scores_path(run.out, split)
        scores[split] = results.join_models(_score_all(run, list(evaluated_models(run)), split))
        if not results.read_scores(path).identical(scores[split]):
            results.write_scores(path, scores[split])
    table, path = results.headline_rows(scores.values()), run.out / "scores.json"
    if not path.exists() or path.read_bytes() != json_text(table).encode():
        write_json(path, table)
    return scores


def score_models(run: Run, models: Sequence[EvaluatedModel]) -> list[xr.Dataset]:
    """Scores of some models of the run, one dataset per test split."""
    return [results.join_models(_score_all(run, models, split)) for split in run.test_splits]


def _scores_path(out: Path, split: str) -> Path:
    return out / "scores" / f"{split}.nc"


def _score_all(run: Run, models: Sequence[EvaluatedModel], split: str) -> list[xr.Dataset]:
    """One dataset per model, from the file of scores where that is of these weights and windows.

    Windows and version are noted in the attribute `measured`; models of others are scored again.
    The file is written at the end, and every `save_seconds` on the way.
    """
    path, windows = _scores_path(run.out, split), run.windows(split, device=run.fabric.device)
    measured = digest([run.dataset.fingerprint, windows.starts.tolist(), SCORES_VERSION])
    if path.exists() and _measured(path) != measured:
        run.say(f"{path}: is of other windows or another version, or was altered; scored again")
        path.unlink()
    if path.exists() and run.horizon:
        before = results.read_scores(path)
        if before.attrs.get("rollout_horizon", run.horizon) != run.horizon:
            results.write_scores(path, results.without_roll_outs(before))
    scored, unsaved, saved = [], [], time.monotonic()
    try:
        for model in models:
            before = _known_scores(path, model)
            scores = _scores_of(run, model, windows, before)
            scores = scores.assign_attrs(measured=measured)
            scored.append(scores)
            if before is None or not scores.identical(before):
                unsaved.append(scores)
            if unsaved and time.monotonic() - saved >= run.save_seconds:
                results.add_models(path, results.join_models(unsaved))
                unsaved, saved = [], time.monotonic()
    finally:  # also of the models before one that fails
        if unsaved:
            results.add_models(path, results.join_models(unsaved))
    return scored


def _measured(path: Path) -> str | None:
    """The attribute `measured` of a file of scores; None where it is not as it was written."""
    try:
        return results.read_scores(path).attrs.get("measured")
    except S2KDError:
        return None


def _known_scores(path: Path, model: EvaluatedModel) -> xr.Dataset | None:
    """The scores of these weights in the file, if it has them."""
    if not path.exists():
        return None
    scores = results.select(results.read_scores(path), key=_key(model))
    names = ("role", "backbone", "method")
    scores = results.select(scores, **{name: model.fields[name] for name in names})
    return scores if scores.sizes["model"] else None


def _key(model: EvaluatedModel) -> str:
    return digest([model.key, s2kd.__version__])


def _scores_of(
    run: Run, model: EvaluatedModel, windows: WindowDataset, before: xr.Dataset | None
) -> xr.Dataset:
    fields = {
        **model.fields,
        **_narrator_fields(run, model),
        # of the same weights, perhaps by a recipe that has changed elsewhere since
        "preset": run.recipe.name,
        "recipe": run.recipe.to_dict(),
    }
    if before is None:
        forecast, speed = predictor(run, model, windows)
        scores = score(
            forecast,
            windows,
            statistics=run.train_stats,
            climatology=run.climatology,
            events=run.cell_events,
            progress=run.progress(f"score {model.name} on {windows.split}"),
        )
        scores = results.describe_model(
            scores,
            data=run.recipe.dataset.name,
            split=windows.split,
            latency_ms=None if speed is None else speed["median_ms"],
            latency=speed,
            fingerprint=run.dataset.fingerprint,
            versions=versions(),
            hardware=hardware(run.fabric.device),
            key=_key(model),
            **fields,
        )
    else:
        scores = results.relabel(before, **fields)
    return _with_roll_out(run, model, windows, scores)


def _narrator_fields(run: Run, model: EvaluatedModel) -> dict[str, Any]:
    """Whether the narrator knows the future, and which version of it took part in training."""
    if model.fields["role"] == "reference" or model.fields["narrator"] == "none":
        return {}
    return {"reads_future": run.narrator.reads_future, "narrator_version": run.narrator.version}


def _with_roll_out(
    run: Run, model: EvaluatedModel, windows: WindowDataset, scores: xr.Dataset
) -> xr.Dataset:
    """The scores with a roll-out, where one is asked for and they have none of that length."""
    if not run.horizon or ("rollout_mse" in scores and scores["rollout_mse"].notnull().all()):
        return scores
    step = roll_out_step(run, model, windows)
    if step is None:
        return scores
    rolled = roll_out(
        step,
        windows,
        horizon=run.horizon,
        statistics=run.train_stats,
        climatology=run.climatology,
        progress=run.progress(f"roll out {model.name} on {windows.split}"),
    )
    return results.with_variables(scores, rolled)


def read_scores(out: Path) -> dict[str, xr.Dataset]:
    """The scores that `evaluate` wrote, by split."""
    paths = sorted(_scores_path(out, "*").parent.glob("*.nc"))
    if not paths:
        raise S2KDError(f"{out}: has no scores yet; run `s2kd evaluate` first")
    return {path.stem: results.read_scores(path) for path in paths}


def predictor(
    run: Run, model: EvaluatedModel, windows: WindowDataset
) -> tuple[Predict, dict[str, Any] | None]:
    """A function that forecasts a batch, and the latency of one window (None for references)."""
    network = on_device(run, model)
    if network is None:
        return _reference(run, model, windows), None
    states = run.states(windows.split) if takes_text(network) else None
    first = windows.gather(torch.tensor([0]))
    tokens = states.tokens(first.index, first.past.device) if states is not None else None
    speed = latency(FramesOnly(network, tokens).eval(), first.past)
    return lambda past, batch: predict(network, past, batch.index, states), speed


def roll_out_step(run: Run, model: EvaluatedModel, windows: WindowDataset) -> Predict | None:
    """A function that forecasts one block; None for a teacher that reads narratives.

    Such a teacher has no narratives of its own forecasts.
    """
    network = on_device(run, model)
    if network is None:
        return _reference(run, model, windows, horizon=run.horizon)
    if takes_text(network):
        return None
    return lambda past, batch: predict(network, past, batch.index, None)


def _reference(
    run: Run, model: EvaluatedModel, windows: WindowDataset, *, horizon: int = 1
) -> Predict:
    if model.name == "persistence":
        return persistence(windows.lead)
    return climatology_forecast(run.climatology, windows, horizon=horizon)


def takes_text(network: Student | Teacher | GivenTeacher) -> bool:
    """Whether a network takes narratives."""
    return isinstance(network, Teacher) and network.reads


def on_device(run: Run, model: EvaluatedModel) -> Student | Teacher | GivenTeacher | None:
    """The network of a model; None for references."""
    if model.load is None:
        return None
    return model.load().to(run.fabric.device).to(memory_format=torch.channels_last)


# --- report -----------------------------------------------------------------------------------


def report(run: Run) -> Path:
    """`report.html` and `figures/`, from the files of the run alone."""
    from s2kd.evaluation.answer import Answer
    from s2kd.evaluation.progress import read_progress
    from s2kd.evaluation.report import write_report

    path, progress = run.out / "report.html", read_progress(run.out)
    search, answer = run.out / "sweep.json", run.out / "answer.json"
    for source in (search, answer):
        check_seal(source, "delete it, and the same search makes it again")
    write_report(
        path,
        scores=read_scores(run.out),
        trainings=progress.trainings if progress else (),
        samples=_samples(run),
        recipe=run.recipe,
        search=read_json(search) if search.exists() else None,
        answer=Answer.from_dict(read_json(answer), str(answer)) if answer.exists() else None,
    )
    return path


def is_reported(out: Path) -> bool:
    """Whether the report is of these scores, search and answer, written only where they change."""
    page = out / "report.html"
    sources = [out / name for name in ("scores.json", "sweep.json", "answer.json")]
    times = [path.stat().st_mtime_ns for path in sources if path.exists()]
    return page.exists() and page.stat().st_mtime_ns >= max(times)


@torch.no_grad()
def _samples(run: Run) -> dict[str, Any]:
    """The middle test window: frames, narrative, and forecasts of the first seed's models."""
    windows, seed = run.windows("test"), run.recipe.seeds[0]
    number = len(windows) // 2
    window = windows.gather(torch.tensor([number]))
    forecasts = {}
    for model in evaluated_models(run):
        if model.load is None or model.fields["seed"] not in (None, seed):
            continue
        network = model.load()
        states = run.states("test") if takes_text(network) else None
        forecast = predict(network, window.past, window.index, states)
        forecasts[_label(model)] = forecast[0].numpy()
    reads = "text" in run.teacher_kinds
    last = int(windows.starts[number]) + windows.past - 1
    times = [
        str(time)[:16].replace("T", " ")
        for time in run.dataset.times[last : last + windows.lead + 1]
    ]
    return {
        # simulations, which have no dates, count from 1970 or in parts of a minute
        "times": times if run.dataset.grid.step_seconds >= 60 and times[0] >= "1971" else [],
        "past": window.past[0].numpy(),
        "truth": window.future[0].numpy(),
        "forecasts": forecasts,
        "narrative": narratives(run, "test")[number] if reads else "",
        "grid": run.dataset.grid,
    }


def _label(model: EvaluatedModel) -> str:
    fields = model.fields
    if fields["role"] == "teacher":
        return fields["method"]
    return f"{fields['backbone']} {fields['method']}"


def export(run: Run) -> Path:
    """The run's best student by validation error, exported to a folder in its own."""
    from s2kd.core.saved import find_student
    from s2kd.deploy.export import export_student
    from s2kd.deploy.metadata import EXPORT, is_exported

    best = find_student(run.out)
    return (
        best / EXPORT
        if is_exported(best)
        else export_student(best, dataset=run.dataset, say=run.say)
    )
