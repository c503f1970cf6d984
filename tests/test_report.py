"""The summary by hand, and a page that holds what it says and nothing from elsewhere."""

import base64
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from msgspec import structs
from rich.console import Console

from s2kd.core.errors import S2KDError
from s2kd.core.recipe import Method, Part, Recipe, TeacherSpec
from s2kd.core.types import GridSpec
from s2kd.evaluation import figures
from s2kd.evaluation.answer import Candidate
from s2kd.evaluation.maps import coastlines, maps
from s2kd.evaluation.report import answer_of_run, write_report
from s2kd.evaluation.results import describe_model, join_models, select
from s2kd.evaluation.summary import summary_rows, summary_table
from s2kd.evaluation.tables import Table

LEAD, WINDOWS = 4, 60
CHANNELS = ("flow in/out", "t")


def model(
    role,
    backbone,
    method,
    seed,
    mse,
    *,
    narrator="none",
    split="test",
    runs=(),
    spectra=True,
    reads_future=False,
    validation=False,
):
    """The scores of one model, with made-up numbers round `mse`."""
    generator = np.random.default_rng(len(method) + 100 * (seed or 0))
    errors = mse * (1 + 0.1 * generator.standard_normal(WINDOWS))
    curve = np.sqrt(mse) * np.linspace(0.5, 1.5, LEAD)[:, None].repeat(2, 1)
    power = np.broadcast_to(1 / np.arange(1, 10) ** 3, (LEAD, 2, 9))
    dims = ("window", "lead", "channel", "event")
    counts = np.full((WINDOWS, LEAD, 2, 2), 2, np.int32)
    values = {
        "mse": mse, "mae": 0.7 * np.sqrt(mse), "rmse": np.sqrt(mse), "ssim": 1 - mse,
        "window_mse": ("window", errors * mse / errors.mean()),
        "rmse_by_lead": (("lead", "channel"), curve),
        "window_squared_error": (dims[:3], curve**2 * (errors / errors.mean())[:, None, None]),
        "hits": (dims, counts), "false_alarms": (dims, counts // 2), "observed": (dims, counts + 1),
        "event_cells": (("channel", "event"), np.full((2, 2), 50, np.int32)),
    }  # fmt: skip
    if spectra:
        wave = ("lead", "channel", "wavenumber")
        values |= {"spectrum_forecast": (wave, power * (1 - mse)), "spectrum_truth": (wave, power)}
    coords = {"lead": range(1, LEAD + 1), "channel": list(CHANNELS),
              "unit": ("channel", ["1", "K"]), "event": ["above 90 %", "above 95 %"],
              "wavenumber": range(9)}  # fmt: skip
    if runs:
        values |= {"mse_by_run": ("run", [mse * (i + 1) for i in range(len(runs))])}
        values |= {"windows_by_run": ("run", [WINDOWS // len(runs)] * len(runs))}
        coords["run"] = list(runs)
    attrs = {"windows": WINDOWS, "past": 4, "lead": LEAD, "step_seconds": 1800.0, "overlap": 4,
             "windows_per_time": 1, "cells": 54, "normalised": "by std", "ssim": "Gaussian",
             "climatology": "", "spectra": "Hann"}  # fmt: skip
    return describe_model(
        xr.Dataset(values, coords, attrs),
        data="made", preset="small", split=split, role=role, backbone=backbone, method=method,
        seed=seed, validation=mse if validation and seed else None, narrator=narrator,
        reads_future=reads_future,
        parameters={"reference": 0, "teacher": 12_345_678, "student": 54_321}[role],
        latency_ms=None if role == "reference" else 2.0 + (seed or 0),
        versions={"s2kd": "1"}, hardware={"processor": "none", "threads": 1, "device": "cpu"},
    )  # fmt: skip


def file(scale=1.0, *, reads_future=False, **more):
    """Scores of nine models, deliberately out of order."""
    rules = {"narrator": "rules", "reads_future": reads_future}
    return join_models([
        model("student", "unet", "s2kd", 1, 0.26 * scale, **rules, **more),
        model("student", "unet", "s2kd", 2, 0.30 * scale, **rules, **more),
        model("teacher", "triton", "teacher-no-text", 1, 0.25 * scale, **more),
        model("teacher", "triton", "teacher", 1, 0.20 * scale, narrator="rules", **more),
        model("student", "mixer", "baseline", 1, 0.15 * scale, **more),
        model("student", "mixer", "s2kd", 1, 0.16 * scale, narrator="rules", **more),
        model("reference", "persistence", "persistence", None, 0.9 * scale, **more),
        model("student", "unet", "baseline", 1, 0.36 * scale, **more),
        model("student", "unet", "baseline", 2, 0.44 * scale, **more),
    ])  # fmt: skip


def by_name(scores):
    return {(row["backbone"], row["method"]): row for row in summary_rows([scores])}


def test_the_summary_by_hand():
    rows = by_name(file())
    baseline, student = rows["unet", "baseline"], rows["unet", "s2kd"]
    assert (baseline["mse"], student["mse"]) == (pytest.approx(0.40), pytest.approx(0.28))
    assert student["mse_std"] == pytest.approx(0.02 * math.sqrt(2), rel=1e-5)
    assert (student["seeds"], student["latency_ms"]) == (2, 3.0)  # the smallest
    assert student["gain_percent"] == pytest.approx(30, rel=1e-5)
    # towards the teacher that reads (0.20), by the one seed that all three have
    assert student["gap_closed_percent"] == pytest.approx(100 * 0.10 / 0.16, rel=1e-5)
    assert baseline["gain_percent"] is None
    assert baseline["gap_closed_percent"] is None
    assert rows["triton", "teacher"]["mse_std"] is None
    json.dumps(list(rows.values()), allow_nan=False)


def test_no_gap_where_the_teacher_is_no_better():
    worse = by_name(file())["mixer", "s2kd"]
    assert worse["gain_percent"] == pytest.approx(-100 * 0.01 / 0.15, rel=1e-5)
    assert worse["gap_closed_percent"] is None


def test_no_share_of_a_gap_that_chance_could_give():
    scores = file().copy(deep=True)
    number = scores["method"].values.tolist().index("teacher")
    scores["window_mse"][number, :5] += 2
    scores["mse"][number] = scores["window_mse"][number].mean()  # 0.37, below the baseline's 0.40
    row = by_name(scores)["unet", "s2kd"]
    assert row["gap_closed_percent"] is None
    assert row["gain_percent"] == pytest.approx(30, rel=1e-5)


def test_references_teachers_students_in_that_order_baseline_first():
    assert list(by_name(file())) == [
        ("persistence", "persistence"),
        ("triton", "teacher"),
        ("triton", "teacher-no-text"),
        ("unet", "baseline"),
        ("unet", "s2kd"),
        ("mixer", "baseline"),
        ("mixer", "s2kd"),
    ]


def test_only_the_teacher_reads_and_a_look_at_the_future_is_shown():
    rows = by_name(file())
    assert [name for name, row in rows.items() if row["reads_text"]] == [("triton", "teacher")]
    assert by_name(file(reads_future=True))["unet", "s2kd"]["reads_future"]
    assert "future" in text_of(summary_table(file(reads_future=True)))
    assert "future" not in text_of(summary_table(file()))


def text_of(table, width=100):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table.rich())
    return console.export_text()


def test_a_table_in_a_terminal_in_markdown_and_in_html():
    table = summary_table(file())
    text = text_of(table)
    assert "…" not in text
    for shown in ("0.2800", "±0.0283", "+30.0*", "12.35", "54,321", "persistence", "2 seeds"):
        assert shown in text, shown
    lines = table.markdown().splitlines()
    assert lines[0] == "**made · small · test**"
    assert lines[2].count("|") == lines[3].count("|") == lines[4].count("|") == 9
    odd = Table(title="", head=("a|b", "c"), lines=(("1 < 2", "x|y"),))
    assert "| a\\|b | c |" in odd.markdown().replace("a|b", "a\\|b") or r"x\|y" in odd.markdown()
    assert "<td>1 &lt; 2</td>" in odd.html()


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
        "times": [f"2014-01-01 0{hour}:00" for hour in range(LEAD + 1)],
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
        scores={"test": file(runs=("calm", "storm"))},
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
    kinds = ("lead", "spectra", "extremes", "maps-flow_in_out", "maps-t", "training")
    assert names == {f"{kind}.png" for kind in kinds}
    assert all(image["alt"] for image in page.images)
    words = " ".join(page.words)
    stated = ("60 (test)", "1, 2", "none, 1 thread", "2014-01-01 00:00")
    for shown in ("Flow <rises> & falls.", "+30.0*", "calm", "storm", "±0.0283", *stated):
        assert shown in words, shown
    assert json.dumps(RECIPE.to_dict(), indent=2, ensure_ascii=False) in words


def test_a_page_of_references_alone(tmp_path):
    scores = select(file(spectra=False), role="reference")
    write_report(tmp_path / "report.html", scores={"test": scores})
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {"lead.png", "extremes.png"}
    assert "0.9000" in (tmp_path / "report.html").read_text()


def test_every_test_split_has_its_table_and_the_answer_is_in_units(tmp_path):
    scores = {"test": file(validation=True), "unseen": file(2.5, split="unseen", validation=True)}
    write_report(tmp_path / "report.html", scores=scores)
    text = (tmp_path / "report.html").read_text()
    for split, error in (("test", "0.2800"), ("unseen", "0.7000")):
        part = text[text.index(f"Normalised errors, {split} split") :]
        assert f"<td>U-Net (S²-KD)</td><td>54,321</td><td>{error}" in part
    # the lowest validation error; the last lead's error is 1.5 √MSE in both channels
    headline = re.search(r'<p class="headline">(.*?)</p>', text)[1]
    assert headline.startswith("MLP-Mixer (no distillation), 54,321 parameters, 3 ms")
    assert f"t {1.5 * math.sqrt(0.15):.3f} K (teacher {1.5 * math.sqrt(0.2):.3f}" in headline
    assert text.count("<h3>Leaderboard, ") == 2
    marked = re.findall(r'<tr class="mark"><td>(.*?)</td>', text)
    assert marked == ["▸ MLP-Mixer (no distillation)"] * 2


def test_an_answer_with_candidates_and_hostile_names_is_text_alone(tmp_path):
    scores, bad = {"test": file(validation=True)}, "<script>alert(1)</script>"
    made = answer_of_run(scores)
    row = Candidate(
        student="unet", settings={}, method="fitnet", label=bad, parameters=1, bytes=4,
        latency_ms=1.0, runtime="ONNX", validation=0.3, seconds=1.0, epochs=1, state="pruned",
        reason=bad,
    )  # fmt: skip
    made = structs.replace(made, candidates=(row,))
    write_report(tmp_path / "report.html", scores=scores, answer=made)
    page = Page()
    page.feed((tmp_path / "report.html").read_text())
    assert page.open == []
    assert "<script" not in (tmp_path / "report.html").read_text()
    assert bad in page.words


def test_nothing_to_report_is_refused(tmp_path):
    with pytest.raises(S2KDError, match="no scores to report"):
        write_report(tmp_path / "report.html", scores={})


def drawn(grid, *, still=False):
    """Maps of the second channel; `still`: a field that hardly changes."""
    example = sample(grid)
    pattern = 100 * np.arange(grid.height * grid.width).reshape(grid.height, grid.width)
    still = pattern if still else 0
    frames = {name: example[name] + still for name in ("past", "truth")}
    forecasts = {n: example["forecasts"][n] + still for n in ("unet s2kd", "teacher")}
    when = [f"+{i}" for i in range(LEAD)]
    figure = maps(**frames, forecasts=forecasts, channel=1, grid=grid, when=when)
    return frames, forecasts, figure


def images(figure):
    return [a.images[0] for a in figure.axes if a.images]


def of(figure, *names):
    return [i for i in images(figure) if i.get_cmap().name in names]


def test_maps_share_one_range_and_errors_are_centred():
    frames, forecasts, figure = drawn(plain_grid())
    fields, errors = of(figure, "viridis"), of(figure, "PuOr_r")
    assert (len(fields), len(errors)) == (3 * 3, 3 * 2)
    assert len({i.get_clim() for i in fields}) == 1
    (low, high) = {i.get_clim() for i in errors}.pop()
    assert low == -high < 0
    error = forecasts["unet s2kd"][-1, 1] - frames["truth"][-1, 1]
    assert any(np.allclose(i.get_array(), error) for i in errors)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["truth", "unet s2kd", "teacher", "error: unet s2kd", "error: teacher"]


def test_maps_show_the_change_where_the_field_hides_it():
    frames, _, figure = drawn(plain_grid(), still=True)
    assert of(figure, "viridis") == []
    changes = of(figure, "RdBu_r")
    want = frames["truth"][-1, 1] - frames["past"][-1, 1]
    assert any(np.allclose(i.get_array(), want, atol=1e-3) for i in changes)
    low, high = changes[0].get_clim()
    assert low == -high < 0


def test_maps_have_degrees_where_known_and_north_on_top():
    grid = plain_grid(
        latitude=(75.0, 63.0, 51.0, 39.0, 27.0, 15.0),
        longitude=tuple(200.0 + 16 * i for i in range(9)),
    )
    image = images(drawn(grid)[-1])[0]
    assert tuple(image.get_extent()) == (192.0, 336.0, 9.0, 81.0)
    assert image.origin == "upper"
    assert image.axes.yaxis.get_major_formatter()(-30.0) == "30°S"
    assert image.axes.xaxis.get_major_formatter()(200.0) == "160°W"
    assert image.axes.xaxis.get_major_formatter()(30.0) == "30°E"


@pytest.mark.parametrize(
    ("longitude", "latitude"),
    [(-67.3, -55.9), (20.0, -34.8), (25.8, 71.1)],  # Cape Horn, Cape Agulhas, North Cape
)
def test_coastlines_pass_the_capes(longitude, latitude):
    distance = np.hypot(*(coastlines() - (longitude, latitude)).T)
    assert np.nanmin(distance) < 1.0


def test_coastlines_are_drawn_on_wide_geographic_maps_alone():
    rows = {"latitude": (75.0, 63.0, 51.0, 39.0, 27.0, 15.0)}
    for step, lines in ((16, 1), (0.2, 0)):
        columns = tuple(200.0 + step * i for i in range(9))
        axes = images(drawn(plain_grid(**rows, longitude=columns))[-1])[0].axes
        assert len(axes.lines) == lines
        assert axes.get_xlim() == (200 - step / 2, 200 + 8.5 * step)
    assert images(drawn(plain_grid())[-1])[0].axes.lines[:] == []


def test_cells_that_do_not_exist_are_blank():
    mask = tuple(tuple((y, x) != (2, 3) for x in range(9)) for y in range(6))
    for image in images(drawn(plain_grid(mask=mask))[-1]):
        blank = np.isnan(np.ma.filled(image.get_array(), np.nan))
        assert blank[2, 3]
        assert blank.sum() == 1


def test_curves_show_the_numbers_they_were_given():
    style = figures.colours(["persistence", "baseline", "s2kd"])
    assert len(set(style.values())) == 3
    curves = {"baseline": ([1.0, 2.0], [0.1, 0.2]), "s2kd": ([0.5, 1.0], [0.0, 0.0])}
    panels = {"t: RMSE (K)": {"unet": curves, "mixer": {"s2kd": ([3.0, 4.0], [0.0, 0.0])}}}
    figure = figures.curve_grid(panels, x=[6.0, 12.0], x_label="hours", style=style)
    unet, mixer = ({line.get_label(): line for line in axes.lines} for axes in figure.axes)
    assert unet["baseline"].get_xydata().tolist() == [[6.0, 1.0], [12.0, 2.0]]
    assert unet["S²-KD"].get_xydata().tolist() == [[6.0, 0.5], [12.0, 1.0]]
    assert mixer["S²-KD"].get_color() == unet["S²-KD"].get_color() == style["s2kd"][0]
    assert [axes.get_title() for axes in figure.axes] == ["U-Net", "MLP-Mixer"]


def test_the_heat_map_writes_each_number_in_its_cell():
    values = np.array([[0.25, np.nan], [0.5, 1.0]])
    (axes,) = figures.heat_map(values, rows=["a", "b"], columns=["x", "y"]).axes
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    assert shown == {(0, 0): "0.25", (0, 1): "0.50", (1, 1): "1.00"}


def test_hints_are_no_forecast_epochs():
    records = curves()["student unet-s2kd-seed1"]
    style = figures.colours(["s2kd"])
    figure = figures.training_curves({"unet": [("s2kd", records)]}, style=style)
    assert figure.axes[0].lines[0].get_xdata().tolist() == [2, 3, 4]
