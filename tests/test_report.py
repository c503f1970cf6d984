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
from PIL import Image
from rich.console import Console

from s2kd.core.errors import S2KDError
from s2kd.core.recipe import Method, Part, Recipe, TeacherSpec
from s2kd.core.types import GridSpec
from s2kd.evaluation import figures
from s2kd.evaluation.answer import Candidate
from s2kd.evaluation.maps import (
    LEVELS,
    ColourScale,
    channel_maps,
    coast_path,
    coastlines,
    extent,
    levels,
    region,
    shown_leads,
)
from s2kd.evaluation.page import Section, Training, figure_of, render, training_section
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
    console.print(table)
    return console.export_text()


def test_a_table_in_a_terminal_in_markdown_and_in_html():
    table = summary_table(file())
    text = text_of(table)
    assert "…" not in text
    for shown in ("0.2800", "±0.0283", "+30.0*", "12.35", "54,321", "persistence", "2 seeds"):
        assert shown in text, shown
    words = {word for word in text.split() if word[0] != "─"}
    for width in range(30, 100):  # columns that do not fit are below
        assert words - set(text_of(table, width=width).split()) == set()
    lines = table.markdown().splitlines()
    assert lines[0] == "**made · small · test**"
    assert lines[2].count("|") == lines[3].count("|") == lines[4].count("|") == 9
    odd = Table(title="", head=("a|b", "c"), lines=(("1 < 2", "x|y"),))
    assert "| a\\|b | c |" in odd.markdown().replace("a|b", "a\\|b") or r"x\|y" in odd.markdown()
    # bounds are small, and every cell has its heading, for phones
    bounded = Table(title="", head=("", 'a "b"'), lines=(("x", "1.5 [1.0, 2.0]"), ("y", "–")))
    page = render(title="", sections=[Section(heading="", tables=[odd, bounded])])
    assert "<td>1 &lt; 2</td>" in page
    assert '<td data-label="a &#34;b&#34;">1.5<small>[1.0, 2.0]</small></td>' in page
    assert '<td data-label="a &#34;b&#34;" class="none">–</td>' in page


class Page(HTMLParser):
    """Images, links, captions and words of a page; tags must close."""

    VOID = ("meta", "img", "link", "br", "input")

    def __init__(self):
        super().__init__()
        self.open, self.images, self.outside, self.captions, self.words = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href") and not value.startswith(("data:", "#")):
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


def trainings():
    def training(model, method, seed, count):
        points = [(e + 1, 1 / (e + 1)) for e in range(count)]
        return Training(
            model=model, method=method, seed=seed, points=points, state="finished", most=9
        )

    return [
        training("teacher", "teacher", 1, 5),
        training("unet", "baseline", 1, 4),
        training("unet", "s2kd", 1, 4),
        training("unet", "s2kd", 2, 6),
        training("mixer", "baseline", 1, 0),
    ]


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
        trainings=trainings(),
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
    content = {"data-lead": set(), "": set()}
    for image in page.images:
        png = base64.b64decode(image["src"].split(",", 1)[1])
        content["data-lead" if "data-lead" in image else ""].add(png)
        assert png.startswith(b"\x89PNG")
        assert image["alt"]
    assert stored == content[""]
    # of two channels: truth, a student and the teacher, and the errors of these
    assert sum("data-lead" in image for image in page.images) == 2 * 5 * LEAD
    names = {p.stem for p in (tmp_path / "figures").glob("*.png")}
    curves = {f"{kind}_{channel}_{backbone}" for kind in ("lead", "spectra")
              for channel in ("flow_in_out", "t") for backbone in ("unet", "mixer")}  # fmt: skip
    assert names == curves | {"training_teacher", "training_U-Net"}
    words = " ".join(page.words)
    stated = ("60 (test)", "1, 2", "none, 1 thread", "2014-01-01 00:00")
    for shown in ("Flow <rises> & falls.", "+30.0*", "calm", "storm", "±0.0283", *stated):
        assert shown in words, shown
    assert json.dumps(RECIPE.to_dict(), indent=2, ensure_ascii=False) in words


def test_a_page_of_references_alone(tmp_path):
    scores = select(file(spectra=False), role="reference")
    write_report(tmp_path / "report.html", scores={"test": scores})
    names = {p.name for p in (tmp_path / "figures").iterdir()}
    assert names == {"lead_flow_in_out.png", "lead_t.png"}
    assert "0.9000" in (tmp_path / "report.html").read_text()


def test_every_test_split_has_its_table_and_the_answer_is_in_units(tmp_path):
    scores = {"test": file(validation=True), "unseen": file(2.5, split="unseen", validation=True)}
    write_report(tmp_path / "report.html", scores=scores)
    text = (tmp_path / "report.html").read_text()
    for split, error in (("test", "0.2800"), ("unseen", "0.7000")):
        part = text[text.index(f"Normalised errors, {split} split") :]
        row = re.search(r"<td>U-Net \(S²-KD\)</td>(.*?)</tr>", part)[1]
        assert re.findall(r">([\d.,]+)<", row)[:2] == ["54,321", error]
    # the lowest validation error; the last lead's error is 1.5 √MSE in both channels
    headline = re.search(r'<p class="headline">(.*?)</p>', text)[1]
    assert headline.startswith("MLP-Mixer (no distillation), 54,321 parameters, 3 ms")
    assert f"<li>t {1.5 * math.sqrt(0.15):.3f} K (teacher {1.5 * math.sqrt(0.2):.3f}" in text
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
    return frames, forecasts, channel_maps(**frames, forecasts=forecasts, channel=1, grid=grid)


def decoded(panel, lead=-1):
    """(level of every cell, colour of every level) of one image."""
    image = Image.open(io.BytesIO(base64.b64decode(panel.images[lead])))
    return np.asarray(image), np.array(image.getpalette()).reshape(-1, 3)


def values_of(panel, scale, lead=-1):
    """The field that an image shows."""
    return scale.low + decoded(panel, lead)[0] / (LEVELS - 1) * (scale.high - scale.low)


def test_maps_share_one_range_and_errors_are_centred():
    frames, forecasts, shown = drawn(plain_grid())
    assert [len(p.images) for pair in shown.forecasts for p in (shown.truth, *pair)] == [LEAD] * 6
    fields, errors = shown.scales
    assert errors.low == -errors.high < 0
    for panel, scale, field in (
        (shown.truth, fields, frames["truth"][-1, 1]),
        (shown.forecasts[1][0], fields, forecasts["teacher"][-1, 1]),
        (shown.forecasts[0][1], errors, (forecasts["unet s2kd"] - frames["truth"])[-1, 1]),
    ):
        level = (scale.high - scale.low) / (LEVELS - 1)
        error = values_of(panel, scale) - np.clip(field, scale.low, scale.high)
        assert np.abs(error).max() < 0.51 * level
    rmse = np.sqrt(np.mean((forecasts["teacher"] - frames["truth"])[0, 1] ** 2))
    assert shown.forecasts[1][1].notes[0] == f"RMSE {rmse:.3g}"
    titles = [panel.title for pair in shown.forecasts for panel in pair]
    assert titles == ["unet s2kd", "error: unet s2kd", "teacher", "error: teacher"]


def test_maps_show_the_change_where_the_field_hides_it():
    frames, _, shown = drawn(plain_grid(), still=True)
    scale = shown.scales[0]
    assert (scale.label, scale.low) == ("change of t (K) since the last input", -scale.high)
    want = np.clip(frames["truth"][-1, 1] - frames["past"][-1, 1], scale.low, scale.high)
    assert np.allclose(values_of(shown.truth, scale), want, atol=scale.high / LEVELS * 1.1)


def geographic(step):
    return plain_grid(
        latitude=(75.0, 63.0, 51.0, 39.0, 27.0, 15.0),
        longitude=tuple(200.0 + step * i for i in range(9)),
    )


def test_maps_have_degrees_where_known():
    assert extent(geographic(16)) == (192.0, 336.0, 9.0, 81.0)
    assert region(geographic(16)) == "9 to 81 °N, -168 to -24 °E"
    assert region(plain_grid()) == ""


def test_many_leads_are_thinned_and_large_grids_averaged():
    assert shown_leads(3) == [0, 1, 2]
    assert (shown_leads(24)[0], shown_leads(24)[-1], len(shown_leads(24))) == (0, 23, 8)
    field = np.arange(300.0)[:, None].repeat(300, 1)
    exists = np.ones(field.shape, bool)
    exists[:3, :3] = exists[3:6, 3] = False
    shades = levels(field, exists, ColourScale(name="viridis", low=0.0, high=299.0, label=""))
    assert shades.shape == (100, 100)
    assert shades[0, 0] == LEVELS  # no cell of the nine exists
    assert shades[1, 1] == round(4 / 299 * (LEVELS - 1))
    assert shades[99, 5] == round(298 / 299 * (LEVELS - 1))


@pytest.mark.parametrize(
    ("longitude", "latitude"),
    [(-67.3, -55.9), (20.0, -34.8), (25.8, 71.1)],  # Cape Horn, Cape Agulhas, North Cape
)
def test_coastlines_pass_the_capes(longitude, latitude):
    distance = np.hypot(*(coastlines() - (longitude, latitude)).T)
    assert np.nanmin(distance) < 1.0


def test_coastlines_are_drawn_on_wide_geographic_maps_alone():
    path = coast_path(geographic(16))
    points = np.array([p.split() for p in re.split("[ML]", path)[1:]], float)
    assert (points.min(0) >= -9).all()
    assert (points.max(0) <= (144 + 9, 72 + 9)).all()
    # Cape Farewell, 43.9°W 59.8°N, in degrees from the corner at 168°W 81°N
    assert np.hypot(*(points - (168 - 43.9, 81 - 59.8)).T).min() < 1
    assert coast_path(geographic(0.2)) == coast_path(plain_grid()) == ""


def test_cells_that_do_not_exist_are_grey():
    mask = tuple(tuple((y, x) != (2, 3) for x in range(9)) for y in range(6))
    _, _, shown = drawn(plain_grid(mask=mask))
    for panel in (shown.truth, *shown.forecasts[0]):
        shades, palette = decoded(panel)
        assert np.argwhere(shades == LEVELS).tolist() == [[2, 3]]
        assert len(set(palette[LEVELS])) == 1


def test_curves_show_the_numbers_they_were_given():
    style = figures.colours(["persistence", "baseline", "s2kd"])
    assert len(set(style.values())) == 3
    curves = {"baseline": ([1.0, 2.0], [0.1, 0.2]), "s2kd": ([0.5, 1.0], [0.0, 0.0])}
    figure = figures.curves(curves, title="t (K)", x=[6.0, 12.0], x_label="hours", style=style)
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["no distillation"].get_xydata().tolist() == [[6.0, 1.0], [12.0, 2.0]]
    assert lines["S²-KD"].get_xydata().tolist() == [[6.0, 0.5], [12.0, 1.0]]
    assert lines["S²-KD"].get_color() == style["s2kd"][0]
    assert axes.get_xticks().tolist() == [6.0, 12.0]


def test_the_heat_map_has_every_model_and_its_share_of_the_best(tmp_path):
    write_report(tmp_path / "report.html", scores={"test": file()})
    text = (tmp_path / "report.html").read_text()
    # hits 2, false alarms 1, observed 3: 2 / (3 + 1)
    cells = re.findall(r'<td style="--share:(.*?)">(.*?)</td>', text)
    assert cells == [("1.00", "0.50")] * (2 * 7)


def test_models_share_an_axis_of_validation_errors():
    drawn = {}

    def figure(drawing, title):
        drawn[title] = drawing.axes[0]
        return figure_of(drawing, title)

    style = figures.colours(["teacher", "baseline", "s2kd"])
    section = training_section(trainings(), style, figure)
    assert list(drawn) == [shown.title for shown in section.figures] == ["teacher", "U-Net"]
    lines = [line for line in drawn["U-Net"].lines if line.get_label()[0] != "_"]
    epochs = [line.get_xdata().tolist() for line in lines]
    assert epochs == [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4, 5, 6]]
    assert drawn["U-Net"].get_ylim() == drawn["teacher"].get_ylim()
    assert training_section([], style) is None
