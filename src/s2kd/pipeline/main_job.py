"""From data to the best small forecaster: plan, teach, search, judge, answer."""

import calendar
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from s2kd.core.console import Progress
from s2kd.core.errors import S2KDError
from s2kd.core.files import digest, read_sealed, sealed, write_json, write_sealed
from s2kd.core.methods import Method, Part, method_named
from s2kd.core.recipe import Recipe
from s2kd.evaluation.answer import Answer, Candidate, Cost, answer_of
from s2kd.pipeline.candidates import Design, designs
from s2kd.pipeline.checks import check_captures, check_parts
from s2kd.pipeline.folder import load_recipe, open_run
from s2kd.pipeline.options import SearchOptions
from s2kd.pipeline.plan import TOO_SLOW, Plan, TeacherCost, check_room, make_plan
from s2kd.pipeline.queue import OutOfTime
from s2kd.pipeline.run import Run
from s2kd.pipeline.scores import TEACHER_METHODS, evaluate, export, report
from s2kd.pipeline.search import Search, promote, tidy, trial_folder
from s2kd.pipeline.study import prepare_supervision, waiting_lock
from s2kd.pipeline.teacher_choice import recipe_with
from s2kd.training.loop import EpochsInTime

OVERTIME = 0.25
"""Share of the time by which the last baseline may end late."""


@dataclass(kw_only=True)
class MainJob:
    """One `distill`: a run with its search's methods, in a folder, until a deadline.

    `base` holds the data and the recipe; `run_settings` are those of `Run`.
    """

    base: Run
    options: SearchOptions
    run_settings: dict[str, Any]
    started: float = field(default_factory=time.monotonic)

    @property
    def deadline(self) -> float:
        """When everything must be done."""
        return self.started + 60 * self.options.minutes

    def plan(self) -> Plan:
        """The plan of this folder, made now where there is none of these options."""
        path = self.base.out / "search" / "plan.json"
        key = digest([self.base.recipe.to_dict(), asdict(self.options)])
        saved = read_sealed(path, "delete it to plan again") if path.exists() else {}
        if saved.get("key") == key:
            return msgspec.convert(saved["plan"], Plan)
        check_captures(self.base)
        plan = make_plan(self.base, self.options)
        check_room(self.base, plan)
        self.open(plan)  # so that the folder is a run's before anything else lies in it
        write_json(path, sealed({"key": key, "plan": msgspec.to_builtins(plan)}))
        return plan

    def open(self, plan: Plan) -> Run:
        """The run with the plan's numbers of epochs."""
        teacher_training = replace(
            self.base.recipe.teacher_training,
            epochs=plan.teacher_epochs or self.base.recipe.teacher_training.epochs,
        )
        recipe = replace(
            self.base.recipe,
            teacher_training=teacher_training,
            student_training=replace(self.base.recipe.student_training, epochs=plan.epochs),
        )
        if (self.base.out / "recipe.json").exists() and any((self.base.out / "teachers").glob("*")):
            # a search with more time goes on with the teacher that is there
            recipe = replace(recipe, teacher_training=load_recipe(self.base.out).teacher_training)
        return self._opened(recipe)

    def _opened(self, recipe: Recipe) -> Run:
        """The run of this recipe in the folder, with the data that are loaded already."""
        run = open_run(recipe, self.base.out, free=("student_training",), **self.run_settings)
        base = self.base
        run.dataset, run.train_stats, run.fabric = base.dataset, base.train_stats, base.fabric
        for name in {"captures", "unlabelled", "given_teacher"} & set(vars(base)):
            setattr(run, name, getattr(base, name))
        return run

    def prepare(self, run: Run, plan: Plan) -> None:
        """Narratives, teacher and its outputs, by one process; the others wait."""
        limit = time.monotonic() + 1.5 * plan.seconds["teacher"] + 5
        with self.lock():
            epochs = run.recipe.teacher_training.epochs
            run.on_epoch = EpochsInTime(epochs, min(limit, self.deadline))
            prepare_supervision(run)
            run.on_epoch = None

    def lock(self) -> AbstractContextManager[bool]:
        """The folder's lock, waited for where another process of the search holds it."""
        return waiting_lock(self.base.out, self.base.say)

    def search(self, run: Run, plan: Plan) -> Search:
        """The search of this plan, as far as it has come."""
        methods = [method for method in run.recipe.methods if method.name in plan.methods]
        return Search(
            run=run,
            designs=designs(plan.students, methods),
            epochs=plan.epochs,
            deadline=self.deadline - plan.seconds["scores"],
        )

    def train(self, run: Run, search: Search) -> None:
        """Train candidates until all are judged or the time for it is over."""
        watched, run.progress = run.progress, _limited(run.progress, search)
        search.run_until_done()
        run.progress = watched
        if not search.finished():
            raise S2KDError(_no_candidate(search))

    def finish(self, run: Run, plan: Plan, search: Search) -> Answer:
        """The best candidate and its peers: trained to the end, scored once, reported, exported."""
        while "running" in search.states().values() and time.monotonic() < self.deadline:
            time.sleep(1)  # another process is at its last candidate
        with self.lock():
            _, best = search.finished()[0]
            baseline = Design(student=best.student, method=method_named("baseline"))
            if search.states()[baseline.name] != "finished":
                # trained as long as the chosen one, or the comparison would flatter it
                search.deadline = self.deadline + OVERTIME * 60 * self.options.minutes
                search.try_design(baseline, to_the_end=True)
                _, best = search.finished()[0]  # which the baseline may be itself
            run.say(f"The best on validation: {best.name}")
            peers = [
                design
                for _, design in search.finished()
                if design.student.name == best.student.name
                # of an earlier search in this folder, the weights may be gone
                and (trial_folder(run, design) / "model.json").exists()
            ]
            finalists = {d.method.name: d for d in [*peers, baseline]}
            for design in finalists.values():
                promote(run, design)
            order = [m for m in [baseline.method, *run.recipe.methods] if m.name in finalists]
            recipe = replace(
                run.recipe,
                students=(best.student.part,),
                methods=tuple({method.name: method for method in order}.values()),
            )
            final = self._opened(recipe)
            scores, candidates = evaluate(final), search.candidates()
            answer = answer_of(
                scores,
                chosen=_label(best.student.part, best.method),
                baseline=_label(best.student.part, baseline.method),
                costs=_costs(run, candidates, finalists.values(), plan.teacher_cost),
                candidates=[*candidates, *_left_out(plan)],
                search={
                    "seconds": round(time.monotonic() - self.started, 1),
                    "minutes": self.options.minutes,
                    "max_latency_ms": self.options.budget.max_latency_ms,
                    "max_parameters": self.options.budget.max_parameters,
                    "windows": plan.windows,
                    "epochs": plan.epochs,
                    "teacher": plan.teacher,
                    "failures": plan.failures,
                    "missing_months": missing_months(run, ["val", *run.test_splits]),
                    "untrained_months": missing_months(run, ["train"]),
                },
            )
            write_json(self.base.out / "answer.json", answer.to_dict(), write_sealed)
            report(final)
            export(final)
            tidy(run, list(finalists.values()))
        return answer


def _costs(
    run: Run,
    candidates: Iterable[Candidate],
    finished: Iterable[Design],
    teacher: TeacherCost | None,
) -> dict[str, Cost]:
    """Size, speed and training time by the labels of the leaderboard."""
    seconds = {candidate.label: candidate.seconds for candidate in candidates}
    costs = {
        _label(d.student.part, d.method): d.student.cost(seconds.get(d.name)) for d in finished
    }
    kinds = run.teacher_kinds if teacher is not None else ()
    return costs | {TEACHER_METHODS[kind]: teacher.cost() for kind in kinds}


def _limited(progress: Callable[[str], Progress], search: Search) -> Callable[[str], Progress]:
    """Progress that raises `OutOfTime` long after the deadline: epochs end by themselves.

    Not before one candidate is trained.
    """

    def watched(stage: str) -> Progress:
        show, ends = progress(stage), search.ends  # read once: it takes the journal of all trials

        def update(done: int, total: int, word: str = "") -> None:
            show(done, total, word)
            if done < total and time.monotonic() > ends + 2 and search.finished():
                raise OutOfTime(stage)

        return update

    return watched


def _left_out(plan: Plan) -> list[Candidate]:
    """Students that were not trained: over the budget, or too slow."""
    return [
        student.candidate(
            state="not_tried" if student.excess == TOO_SLOW else "over_budget",
            reason=student.excess,
        )
        for student in plan.students
        if student.excess
    ]


def missing_months(run: Run, splits: Iterable[str]) -> list[str]:
    """Months of the year that no frame of these splits lies in, for dated weather."""
    dataset = run.dataset
    if dataset.domain != "weather" or dataset.times.dtype.kind != "M":
        return []
    months = dataset.times.astype("datetime64[M]").astype(int) % 12
    present = set()
    for split in splits:
        for stretch in dataset.splits[split]:
            present |= set(months[stretch.first : stretch.stop].tolist())
    return [calendar.month_abbr[month + 1] for month in range(12) if month not in present]


def _label(part: Part, method: Method) -> str:
    """The name of a student in an answer."""
    return f"{part.name} {method.name}"


def _no_candidate(search: Search) -> str:
    reasons = [c.reason for c in search.candidates() if c.reason and c.state == "failed"]
    if reasons:
        return f"every candidate failed; the last: {reasons[-1]}"
    return "the time was over before one candidate had trained for an epoch; raise --time"


def distill(
    recipe: Recipe,
    *,
    out: Path | str,
    options: SearchOptions = SearchOptions(),  # noqa: B008
    show_plan: Callable[[Plan], object] = lambda plan: None,
    plan_only: bool = False,
    **run_settings: Any,
) -> Answer | None:
    """Find, train and judge the best small forecaster within a budget; continues where it stopped.

    The students and methods of `recipe` are replaced; `show_plan` is called before anything long
    begins, and the result is None where that is all (`plan_only`). `run_settings` are those of
    `Run`. The answer is also in `answer.json` and at the top of `report.html`.
    """
    if options.minutes <= 0:
        raise S2KDError(f"--time {options.minutes:g}m: must be longer than 0 minutes")
    started, base = time.monotonic(), Run(recipe=recipe, out=Path(out), **run_settings)
    base.recipe = recipe_with(base, options)
    check_parts(base.recipe)
    job = MainJob(base=base, options=options, run_settings=run_settings, started=started)
    with job.lock():
        plan = job.plan()
    show_plan(plan)
    if plan_only:
        return None
    run = job.open(plan)
    search = job.search(run, plan)
    if search.next_design() is not None:
        job.prepare(run, plan)
        job.train(run, search)
    return job.finish(run, plan, search)
