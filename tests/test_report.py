"""The summary by hand, and a page that holds what it says and nothing from elsewhere."""

import base64
import dataclasses
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from s2kd.core.recipe import Method, Part, Recipe, TeacherSpec
from s2kd.core.types import GridSpec, S2KDError
from s2kd.evaluation import figures
from s2kd.evaluation.report import write_report
from s2kd.evaluation.scoring import Scores, result_row
from s2kd.evaluation.significance import compare, default_block
from s2kd.evaluation.summary import summary_rows, summary_table

LEAD, WINDOWS = 4, 60
CHANNELS = ("flow in/out", "t")


def scores(mse, seed=0, *, groups=(), spectra=True):
    """What `score` gives, with made-up numbers round `mse`."""
    generator = np.random.default_rng(seed)
    windows = mse * (1 + 0.1 * generator.standard_normal(WINDOWS))
    windows = (windows * mse / windows.mean()).tolist()
    curve = (np.sqrt(mse) * np.linspace(0.5, 1.5, LEAD)).tolist()
    power = (1 / np.arange(1, 10) ** 3).tolist()
    events = {
        name: {"csi": 0.4, "pod": 0.5, "far": 0.2, "bias": 0.9, "sedi": None, "threshold": 1.0}
        for name in ("below 5 %", "above 90 %", "above 95 %")
    }
    return Scores(
        metrics={"mse": mse, "mae": 0.7 * math.sqrt(mse), "rmse": math.sqrt(mse), "ssim": 1 - mse},
        physical={c: {"unit": "K", "rmse": curve[-1], "mae": curve[0]} for c in CHANNELS},
        by_lead={c: {"rmse": curve, "mae": curve} for c in CHANNELS},
        by_group={g: {"mse": mse * (i + 1), "windows": 3} for i, g in enumerate(groups)},
        spectra={
            c: {"wavenumber": list(range(9)), "lead": [1, 3, 4], "truth": [power] * 3,
                "forecast": [[p * (1 - mse) for p in power]] * 3}
            for c in CHANNELS
        } if spectra else {},
        extremes={c: events for c in CHANNELS},
        window_mse=windows,
        conventions={
            "split": "test", "windows": WINDOWS, "past": 4, "lead": LEAD, "step_seconds": 1800.0,
            "channels": list(CHANNELS), "units": ["1", "K"], "overlap": 4,
            "normalised": "by std", "ssim": "Gaussian", "climatology": None, "spectra": "Hann",
        },
    )  # fmt: skip


def row(role, backbone, method, seed, mse, *, narrator="none", split="test", **more):
    return result_row(
        scores=scores(mse, seed=len(method) + 100 * (seed or 0), **more),
        data="made",
        preset="small",
        backbone=backbone,
        role=role,
        method=method,
        narrator=narrator,
        seed=seed,
        split=split,
        parameters={"reference": 0, "teacher": 12_345_678, "student": 54_321}[role],
        latency=None if role == "reference" else {"median_ms": 2.0 + (seed or 0)},
    )


def rows(split="test", **more):
    """Deliberately out of order."""
    found = [
        row("student", "unet", "s2kd", 1, 0.26, narrator="rules", split=split, **more),
        row("student", "unet", "s2kd", 2, 0.30, narrator="rules", split=split, **more),
        row("teacher", "triton", "teacher-no-text", 1, 0.25, split=split, **more),
        row("teacher", "triton", "teacher", 1, 0.20, narrator="rules", split=split, **more),
        row("student", "mixer", "baseline", 1, 0.15, split=split, **more),
        row("student", "mixer", "s2kd", 1, 0.16, narrator="rules", split=split, **more),
        row("reference", "persistence", "persistence", None, 0.9, split=split, **more),
        row("student", "unet", "baseline", 1, 0.36, split=split, **more),
        row("student", "unet", "baseline", 2, 0.44, split=split, **more),
    ]
    return json.loads(json.dumps(found))


def by_name(summary):
    return {(s["backbone"], s["method"]): s for s in summary}


def test_the_summary_by_hand():
    found = by_name(summary_rows(rows()))
    baseline, student = found["unet", "baseline"], found["unet", "s2kd"]
    assert (baseline["mse"], student["mse"]) == (pytest.approx(0.40), pytest.approx(0.28))
    assert student["mse_std"] == pytest.approx(0.02 * math.sqrt(2))
    assert (student["seeds"], student["latency_ms"]) == (2, 3.5)
    assert student["gain_percent"] == pytest.approx(30)
    # towards the teacher that reads (0.20), not the blind one
    assert student["gap_closed_percent"] == pytest.approx(60)
    assert baseline["gain_percent"] is None
    assert baseline["gap_closed_percent"] is None
    assert found["triton", "teacher"]["mse_std"] is None


def test_no_gap_where_the_teacher_is_no_better():
    worse = by_name(summary_rows(rows()))["mixer", "s2kd"]
    assert worse["gain_percent"] == pytest.approx(-100 * 0.01 / 0.15)
    assert worse["gap_closed_percent"] is None


def test_no_share_of_a_gap_that_chance_could_give():
    made = rows()
    for one in made:
        if one["role"] == "teacher" and one["method"] == "teacher":
            windows = one["scores"]["window_mse"]
            windows[:5] = [error + 2 for error in windows[:5]]
            one["metrics"]["mse"] = sum(windows) / WINDOWS  # 0.37: below the baseline's 0.40
    found = by_name(summary_rows(made))["unet", "s2kd"]
    assert found["gap_closed_percent"] is None
    assert found["gain_percent"] == pytest.approx(30)


def test_references_teachers_students_in_that_order_baseline_first():
    order = [(s["backbone"], s["method"]) for s in summary_rows(rows())]
    assert order == [
        ("persistence", "persistence"),
        ("triton", "teacher-no-text"),
        ("triton", "teacher"),
        ("unet", "baseline"),
        ("unet", "s2kd"),
        ("mixer", "baseline"),
        ("mixer", "s2kd"),
    ]


def test_only_the_teacher_reads_and_a_look_at_the_future_is_shown():
    made = rows()
    found = by_name(summary_rows(made))
    assert [name for name, s in found.items() if s["reads_words"]] == [("triton", "teacher")]
    made[0]["reads_future"] = True
    assert by_name(summary_rows(made))["unet", "s2kd"]["reads_future"]
    assert "future" in text_of(summary_table(made))
    assert "future" not in text_of(summary_table(rows()))


def test_gains_are_tested_over_windows():
    made = rows()
    found = by_name(summary_rows(made))["unet", "s2kd"]
    errors = {
        m: np.array([r["scores"]["window_mse"] for r in made if (r["backbone"], r["method"]) == m])
        for m in (("unet", "baseline"), ("unet", "s2kd"))
    }
    named = {"base": errors["unet", "baseline"], "s2kd": errors["unet", "s2kd"]}
    want = compare(named, reference="base", block=default_block(WINDOWS, overlap=4))[0]
    assert found["p_value"] == want["p_holm"] < 0.05
    assert found["gain_low"] == pytest.approx(-100 * want["high"] / 0.40)
    assert found["gain_low"] < 30 < found["gain_high"]


def test_splits_are_kept_apart():
    both = rows() + rows(split="test_unseen")
    for one in both[len(rows()) :]:
        one["metrics"]["mse"] *= 2
    found = [s for s in summary_rows(both) if (s["backbone"], s["method"]) == ("unet", "s2kd")]
    assert [(s["split"], pytest.approx(s["mse"])) for s in found] == [
        ("test", 0.28),
        ("test_unseen", 0.56),
    ]
    assert [s["gain_percent"] for s in found] == [pytest.approx(30)] * 2


def test_rows_without_windows_still_make_a_summary():
    bare = [{**r, "scores": {}} for r in rows()]
    found = by_name(summary_rows(bare))["unet", "s2kd"]
    assert found["p_value"] is None
    assert found["gain_percent"] == pytest.approx(30)
    json.dumps(summary_rows(bare), allow_nan=False)


def text_of(table, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(table)
    return console.export_text()


def test_the_table_fits_eighty_columns():
    text = text_of(summary_table(rows()))
    assert "…" not in text
    for shown in ("0.2800", "±0.0283", "+30.0*", "12.35", "54,321", "persistence", "2 seeds"):
        assert shown in text, shown


class Page(HTMLParser):
    """Images, links, captions and words of a page; tags must close."""

    VOID = ("meta", "img", "link", "br")

    def __init__(self):
        super().__init__()
        self.open, self.images, self.outside, self.captions, self.words = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href") and not value.startswith("data:"):
                self.outside.append(value)
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open and self.open[-1] == "figcaption":
            self.captions.append(data)


def sample(grid):
    generator = np.random.default_rng(0)
    shape = (LEAD, 2, grid.height, grid.width)
    truth = generator.normal(size=shape).astype(np.float32)
    names = ("teacher", "unet baseline", "unet s2kd", "mixer baseline", "mixer s2kd", "a b", "a c")
    return {
        "past": generator.normal(size=shape).astype(np.float32),
        "truth": truth,
        "forecasts": {n: truth + 0.3 * generator.normal(size=shape) for n in names},
        "narrative": "Flow <rises> & falls.",
        "grid": grid,
    }


def plain_grid(**more):
    return GridSpec(
        channels=CHANNELS, units=("1", "K"), height=6, width=9, step_seconds=1800.0, **more
    )


def curves():
    def records(count, *terms):
        return [
            {"epoch": e, "train": 1 / (e + 1), "val": 1 / (e + 1), "lr": 1e-3, "hint": e == 0,
             "terms": {name: 1 / (e + 1) for name in terms}}
            for e in range(count)
        ]  # fmt: skip

    return {
        "teacher text-seed1": records(5, "pred"),
        "student unet-baseline-seed1": records(4, "pred"),
        "student unet-s2kd-seed1": records(4, "pred", "semantic"),
        "student unet-s2kd-seed2": records(6, "pred", "semantic"),
        "student mixer-baseline-seed1": [],
    }


RECIPE = Recipe(
    name="small",
    dataset=Part(name="made"),
    past=4,
    lead=LEAD,
    teacher=TeacherSpec(backbone=Part(name="triton")),
    students=(Part(name="unet"),),
    methods=(Method(name="baseline"),),
)


def test_the_page_stands_by_itself(tmp_path):
    path = tmp_path / "report.html"
    mask = tuple(tuple(x != 4 for x in range(9)) for _ in range(6))
    write_report(
        path,
        rows=rows(groups=("calm", "storm")),
        curves=curves(),
        samples=sample(plain_grid(mask=mask)),
        recipe=RECIPE,
    )
    source = path.read_text()
    page = Page()
    page.feed(source)
    assert page.open == []
    assert page.outside == []
    assert not re.search(r"https?://|url\(|@import|<script", source)
    stored = {p.read_bytes() for p in (tmp_path / "figures").glob("*.png")}
    shown = {base64.b64decode(i["src"].split(",", 1)[1]) for i in page.images}
    assert stored == shown
    assert all(content.startswith(b"\x89PNG") for content in stored)
    names = {p.name for p in (tmp_path / "figures").glob("*.png")}
    assert names == {
        "test-overview.png",
        *(f"test-{kind}-{b}.png" for kind in ("lead", "spectra") for b in ("unet", "mixer")),
        "maps-flow_in_out.png",
        "maps-t.png",
        "training.png",
        "terms.png",
    }
    assert len(page.captions) == len(page.images)
    for caption in page.captions:
        for stated in ("made", "small", "seeds 1, 2", "60 windows", "scored on"):
            assert stated in caption
    words = " ".join(page.words)
    for shown in ("Flow <rises> & falls.", "+30.0*", "calm", "storm", "±0.0283", "Gaussian"):
        assert shown in words, shown
    assert json.dumps(RECIPE.to_dict(), indent=2, ensure_ascii=False) in words


def test_a_page_of_references_alone(tmp_path):
    only = [r for r in rows(spectra=False) if r["role"] == "reference"]
    write_report(tmp_path / "report.html", rows=only)
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {"test-lead.png"}
    assert "0.9000" in (tmp_path / "report.html").read_text()


def test_test_splits_are_shown_side_by_side(tmp_path):
    both = rows() + rows(split="test_unseen")
    for one in both[len(rows()) :]:
        one["metrics"]["mse"] *= 2.5
    write_report(tmp_path / "report.html", rows=both)
    text = (tmp_path / "report.html").read_text()
    table = text[text.index("Test splits side by side") : text.index("Results on the test split")]
    assert "<td>unet s2kd</td><td>0.2800</td><td>0.7000 (×2.50)</td>" in table
    write_report(tmp_path / "one.html", rows=rows())
    assert "side by side" not in (tmp_path / "one.html").read_text()


def test_nothing_to_report_is_refused(tmp_path):
    with pytest.raises(S2KDError, match="no scores to report"):
        write_report(tmp_path / "report.html", rows=[])


def drawn(grid, **more):
    made = sample(grid)
    when = [f"+{i}" for i in range(LEAD)]
    return made, figures.maps(
        past=made["past"], truth=made["truth"], forecasts=made["forecasts"], channel=1, grid=grid,
        when=when, **more,
    )  # fmt: skip


def images(figure):
    return [a.images[0] for a in figure.axes if a.images]


def test_maps_share_one_range_and_errors_are_centred():
    made, figure = drawn(plain_grid())
    fields = [i for i in images(figure) if i.get_cmap().name == "viridis"]
    errors = [i for i in images(figure) if i.get_cmap().name == "RdBu_r"]
    count = len(made["forecasts"])
    assert len(errors) == count
    assert len(fields) == 3 * (count + 1) + 1
    assert len({i.get_clim() for i in fields}) == 1
    (low, high) = {i.get_clim() for i in errors}.pop()
    assert low == -high < 0
    want = made["forecasts"]["unet s2kd"][-1, 1] - made["truth"][-1, 1]
    assert any(np.allclose(i.get_array(), want) for i in errors)


def test_maps_have_degrees_where_known_and_north_on_top():
    grid = plain_grid(
        latitude=(75.0, 63.0, 51.0, 39.0, 27.0, 15.0),
        longitude=tuple(200.0 + 16 * i for i in range(9)),
    )
    _, figure = drawn(grid)
    image = images(figure)[0]
    assert tuple(image.get_extent()) == (192.0, 336.0, 9.0, 81.0)
    assert image.origin == "upper"
    assert image.axes.yaxis.get_major_formatter()(-30.0) == "30°S"
    assert image.axes.xaxis.get_major_formatter()(200.0) == "160°W"
    assert image.axes.xaxis.get_major_formatter()(30.0) == "30°E"


def test_cells_that_do_not_exist_are_blank():
    mask = tuple(tuple((y, x) != (2, 3) for x in range(9)) for y in range(6))
    _, figure = drawn(plain_grid(mask=mask))
    for image in images(figure):
        blank = np.isnan(np.ma.filled(image.get_array(), np.nan))
        assert blank[2, 3]
        assert blank.sum() == 1


def test_long_grids_show_the_last_lead_alone():
    made, figure = drawn(dataclasses.replace(plain_grid(), height=4, width=40))
    assert len(images(figure)) == 2 * (len(made["forecasts"]) + 1)


def test_curves_show_the_numbers_they_were_given():
    style = figures.colours(["persistence", "baseline", "s2kd"])
    assert len(set(style.values())) == 3
    figure = figures.lead_curves(
        {"t": {"baseline": ([1.0, 2.0], [0.1, 0.2]), "s2kd": ([0.5, 1.0], [0.0, 0.0])}},
        hours=[6.0, 12.0],
        unit_of_time="hours",
        labels={"t": "t: RMSE (K)"},
        style=style,
    )
    lines = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert lines["baseline"] == [[6.0, 1.0], [12.0, 2.0]]
    assert lines["s2kd"] == [[6.0, 0.5], [12.0, 1.0]]


def test_hints_are_no_forecast_epochs():
    figure = figures.training_curves(
        {"student unet": {"unet-s2kd-seed1": curves()["student unet-s2kd-seed1"]}}
    )
    assert figure.axes[0].lines[0].get_xdata().tolist() == [2, 3, 4]
