"""Searches over one axis, as tables: a surface of one axis is a line, and lines compare better."""

from collections.abc import Iterable, Sequence

from s2kd.evaluation.figures import AXIS_LABELS
from s2kd.evaluation.results import Row
from s2kd.evaluation.tables import number
from s2kd.paper.tables import Table, name_of


def by_axis(searches: Sequence[Row]) -> Iterable[Table]:
    """One table an axis: validation error of every method at every value, the least in bold."""
    single = [one for one in searches if len(one["axes"]) == 1]
    for axis in dict.fromkeys(one["axes"][0] for one in single):
        yield _table(axis, [one for one in single if one["axes"] == [axis]])


def _table(axis: str, searches: Sequence[Row]) -> Table:
    label = AXIS_LABELS[axis]
    values = sorted({value for one in searches for value in _errors(one)})
    epochs = sorted({one["recipe"]["student_training"]["epochs"] for one in searches})
    gains = ("gain over baseline %", "each at its best %")
    return Table(
        title=f"Validation error by {label}",
        head=("data", "student", "method", "seeds", *(f"{value:g}" for value in values), *gains),
        lines=tuple((*_line(one, values), *_gains(one, searches)) for one in searches),
        caption=(
            f"Trainings of {' or '.join(map(str, epochs))} epochs; {searches[0]['measure']}. "
            "Bold: the least of its line; at an end of the line there may be less beyond it. The "
            f"gain is that at the recipe's own {label}, then that of two students which both have "
            "the best for them; no interval, since validation data chose."
        ),
    )


def _line(one: Row, values: Sequence[float]) -> tuple[str, ...]:
    errors = _errors(one)
    least = min(errors.values())
    cells = (number(errors.get(value)) for value in values)
    return (
        one["preset"],
        name_of(one["backbone"]),
        name_of(one["method"]),
        ", ".join(map(str, one["seeds"])),
        *(
            f"**{cell}**" if errors.get(value) == least else cell
            for value, cell in zip(values, cells, strict=True)
        ),
    )


def _gains(one: Row, searches: Sequence[Row]) -> tuple[str, str]:
    """Percent less error than the baseline of the same seeds: both as in the recipe, both best."""
    same = ("preset", "backbone", "seeds", "fingerprint")
    bases = [
        other
        for other in searches
        if other["method"] == "baseline" and all(other.get(k) == one.get(k) for k in same)
    ]
    if one["method"] == "baseline" or not bases:
        return "", ""

    def gain(at: str) -> str:
        if one[at] is None or bases[0][at] is None:
            return number(None)
        return number(100 * (1 - one[at]["validation"] / bases[0][at]["validation"]), "+.1f")

    return gain("own"), gain("best")


def _errors(one: Row) -> dict[float, float]:
    """Validation error by the value of the only axis; the least where one was tried twice."""
    (axis,) = one["axes"]
    found: dict[float, float] = {}
    for trial in one["trials"]:
        if trial["state"] == "complete":
            value = trial["values"][axis]
            found[value] = min(trial["validation"], found.get(value, float("inf")))
    return found
