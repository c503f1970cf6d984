"""Label stores: what is written is what the teacher says in flight, and nothing else is read."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
import xarray as xr

from s2kd.core.files import sealed
from s2kd.core.recipe import Part, Stored
from s2kd.core.types import S2KDError
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.models.checkpoint import Setting, build_student
from s2kd.models.given import given_teacher
from s2kd.models.normaliser import Normaliser
from s2kd.training import label_writer
from s2kd.training.labels import Labels, is_labels, write_labels
from s2kd.training.stored import StoredForecasts, store_forecasts
from s2kd.training.targets import LiveTargets, StoredTargets

PAST, LEAD = 3, 2


@pytest.fixture(scope="module")
def grids(blobs):
    """The blobs on a grid with places, a mask and a unit; two channels."""
    frames = np.concatenate([blobs.frames, 3 - blobs.frames], axis=1)
    mask = np.ones((8, 8), bool)
    mask[2, 3] = False
    grid = dataclasses.replace(
        blobs.grid,
        channels=("t", "u"),
        units=("K", "m s-1"),
        latitude=tuple(np.linspace(70.0, 0.0, 8).tolist()),
        longitude=tuple(np.linspace(0.0, 315.0, 8).tolist()),
        mask=tuple(map(tuple, mask.tolist())),
    )
    return dataclasses.replace(blobs, frames=frames, grid=grid)


@pytest.fixture(scope="module")
def windows(grids):
    return WindowDataset(grids, "train", past=PAST, lead=LEAD)


@pytest.fixture(scope="module")
def setting(grids):
    return Setting(
        grid=grids.grid,
        past=PAST,
        lead=LEAD,
        statistics=statistics(grids, lead=LEAD),
        predict="change",
    )


def teacher_of(setting, seed=0):
    torch.manual_seed(seed)
    model = build_student(Part(name="unet", params={"width": 4}), setting).eval()
    return given_teacher(model, setting=setting, name="heavy")


@pytest.fixture(scope="module")
def store(setting, windows, tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / "labels.zarr"
    write_labels(path, teacher_of(setting), windows, latents=True)
    return path


@pytest.fixture
def copy(store, tmp_path):
    return shutil.copytree(store, tmp_path / "labels.zarr")


def contents(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def live(setting, windows):
    """Forecasts in the normaliser's unit, and latents, asked for in the blocks of a store."""
    targets = LiveTargets(teacher_of(setting), windows)
    answers = [targets.gather(i, "cpu") for i in torch.arange(len(windows)).split(32)]
    return (
        torch.cat([answer.forecast for answer in answers]),
        torch.cat([answer.latent for answer in answers]),
    )


def test_xarray_alone_reads_it(store, grids, windows, recwarn):
    with xr.open_zarr(store) as data:
        assert not recwarn.list
        assert data.forecast.dims == ("time", "lead", "channel", "latitude", "longitude")
        assert data.forecast.dtype == "float32"
        assert data.latent.dims == ("time", "feature", "latent_row", "latent_column")
        last = windows.starts + PAST - 1
        np.testing.assert_array_equal(data.time.values, grids.times[last])
        np.testing.assert_array_equal(data.latitude, grids.grid.latitude)
        np.testing.assert_array_equal(data.frame_time[data.last_frame].values, grids.times[last])
        np.testing.assert_array_equal(data.inputs[data.last_frame].values, grids.frames[last])
        assert data.units.values.tolist() == ["K", "m s-1"]
        assert data.run.values.tolist() == windows.groups.tolist()
        assert not data.mask.values[2, 3]
        assert data.lead.attrs["standard_name"] == "forecast_period"
        hours = data.lead.values if data.lead.dtype.kind == "m" else data.lead.values * 10**9
        assert hours.astype("m8[ns]").tolist() == [
            int(1e9 * grids.grid.step_seconds) * step for step in (1, 2)
        ]


def test_it_is_what_the_teacher_says_in_flight_to_the_last_bit(store, setting, windows):
    labels, index = Labels.open(store), np.random.default_rng(0).permutation(len(windows))[:11]
    forecast, latent = live(setting, windows)
    past = windows.gather(torch.from_numpy(index)).past
    assert np.array_equal(labels.inputs(index), past.numpy())
    physical = torch.from_numpy(labels.forecasts(index))
    assert torch.equal(setting.normaliser.decoded(physical, past), forecast[index])
    assert np.array_equal(labels.latents(index), latent[index].numpy())
    assert labels.latent_width == latent.shape[1]
    assert labels.grid == windows.dataset.grid
    assert labels.teacher["name"] == "heavy"
    assert (labels.past, labels.lead, len(labels)) == (PAST, LEAD, len(windows))


def test_stored_forecasts_read_it_as_their_own(store, setting, grids, windows, tmp_path):
    test = WindowDataset(grids, "train", past=PAST, lead=1, stride=5)
    forecasts = StoredForecasts(Stored(path=str(store)), windows)
    scaler = Normaliser.from_statistics(setting.statistics, predict="change")
    store_forecasts(tmp_path / "t", forecasts, scaler)
    targets = StoredTargets(tmp_path / "t")
    got = targets.gather(torch.arange(len(windows)), "cpu")
    forecast, latent = live(setting, windows)
    exists = torch.from_numpy(grids.grid.exists)
    assert torch.equal(got.forecast[..., exists], forecast[..., exists])
    assert torch.equal(got.latent, latent)
    teacher = LiveTargets(teacher_of(setting), windows)
    assert (targets.extent or teacher.extent) == teacher.extent
    shorter = StoredForecasts(Stored(path=str(store), latent="latent"), test)
    assert np.array_equal(shorter.read(np.array([1]))[0], forecasts.read(np.array([5]))[0][:, :1])
    with pytest.raises(S2KDError, match="initialisation times"):
        StoredForecasts(Stored(path=str(store)), WindowDataset(grids, "val", past=PAST, lead=LEAD))
    with pytest.raises(S2KDError, match="'z'"):
        StoredForecasts(Stored(path=str(store), latent="z"), windows)


class Killed(Exception):
    pass


def test_killed_at_any_block_it_ends_as_if_it_had_not_been(
    store, setting, windows, tmp_path, monkeypatch
):
    from s2kd.training.label_files import LabelFiles

    path, want, save = tmp_path / "labels.zarr", contents(store), LabelFiles.save
    saves, killed = 0, 0
    assert len(windows) > 32, "several blocks"

    def save_or_die(files, **settings):
        nonlocal saves
        saves += 1
        if saves == 2:
            saves = 0
            raise Killed
        save(files, **settings)

    while True:
        with monkeypatch.context() as patch:
            patch.setattr(LabelFiles, "save", save_or_die)
            try:
                write_labels(path, teacher_of(setting), windows, latents=True)
                break
            except Killed:
                killed += 1
        with pytest.raises(S2KDError, match="is not finished"):
            Labels.open(path)
    assert killed >= 2
    assert contents(path) == want


def test_the_same_command_again_changes_nothing(copy, store, setting, windows):
    write_labels(copy, teacher_of(setting), windows, latents=True)
    assert contents(copy) == contents(store)


def altered(path):
    """Chunks of every array, truncated, changed or gone."""
    for view, number in (("forecast", 1), ("inputs", 0), ("latent", 1)):
        yield next((path / view).glob(f"{number}.*")), view, number


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_block_is_named(copy, setting, windows, damage):
    index = np.arange(len(windows))
    for file, view, number in altered(copy):
        before = file.read_bytes()
        match damage:
            case "cut":
                file.write_bytes(before[: len(before) // 2])
            case "changed":
                file.write_bytes(
                    next(
                        f for f in file.parent.iterdir() if f.name[0] == "01"[1 - number]
                    ).read_bytes()
                )
            case "gone":
                file.unlink()
        read = {"forecast": Labels.forecasts, "inputs": Labels.inputs, "latent": Labels.latents}
        with pytest.raises(S2KDError, match=f"labels.zarr/{view}: block {number} "):
            read[view](Labels.open(copy), index)
        with pytest.raises(S2KDError, match=f"labels.zarr/{view}: block {number} "):
            write_labels(copy, teacher_of(setting), windows, latents=True)
        file.write_bytes(before)


def test_large_frames_are_labelled_in_smaller_blocks(
    store, setting, windows, tmp_path, monkeypatch
):
    monkeypatch.setattr(label_writer, "BLOCK_BYTES", 7000)
    write_labels(tmp_path / "l.zarr", teacher_of(setting), windows, latents=True)
    small, large = Labels.open(tmp_path / "l.zarr"), Labels.open(store)
    index = np.arange(len(windows))[::-1].copy()
    assert small.attributes.block == 6
    assert np.array_equal(small.inputs(index), large.inputs(index))
    np.testing.assert_allclose(small.forecasts(index), large.forecasts(index), rtol=1e-5)
    np.testing.assert_allclose(small.latents(index), large.latents(index), rtol=1e-4, atol=1e-5)


def test_altered_attributes_and_coordinates_are_refused(copy):
    file = copy / ".zattrs"
    plain, text = json.loads(file.read_text()), file.read_text()
    file.write_text(json.dumps(plain | {"lead": 1}))
    with pytest.raises(S2KDError, match="was altered"):
        Labels.open(copy)
    file.write_text(json.dumps(sealed(plain | {"lead": 1})))
    with pytest.raises(S2KDError, match="forecast: has shape"):
        Labels.open(copy)
    file.write_text(text[:-40])
    with pytest.raises(S2KDError, match="JSON"):
        Labels.open(copy)
    file.write_text(text)
    with xr.open_zarr(copy) as data:
        data[["last_frame"]].load().roll(time=1).to_zarr(copy, mode="r+", zarr_format=2)
    with pytest.raises(S2KDError, match="coordinates differ"):
        Labels.open(copy)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"dtype": "|O", "filters": [{"id": "pickle"}]}, "not those of plain numbers"),
        ({"compressor": {"id": "pickle"}}, "not those of plain numbers"),
        ({"filters": [{"id": "json2"}]}, "not those of plain numbers"),
        ({"dtype": [["a", "<f4"]]}, "wants str"),
        ({"shape": [2**50]}, "GiB, more than is read at once"),
        ({"chunks": [2**40]}, "GiB, more than is read at once"),
    ],
)
def test_a_hostile_array_is_refused_before_it_is_opened(copy, facts, message):
    file = copy / "units" / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))
    with pytest.raises(S2KDError, match=message):
        Labels.open(copy)


def test_another_teacher_or_other_windows_are_refused(copy, setting, grids, windows):
    with pytest.raises(S2KDError, match="differ in teacher"):
        write_labels(copy, teacher_of(setting, seed=1), windows, latents=True)
    fewer = WindowDataset(grids, "train", past=PAST, lead=LEAD, stride=2)
    with pytest.raises(S2KDError, match="differ in windows, latents, inputs"):
        write_labels(copy, teacher_of(setting), fewer, inputs=False)
    changed = dataclasses.replace(grids, frames=grids.frames + 1)
    other = WindowDataset(changed, "train", past=PAST, lead=LEAD)
    with pytest.raises(S2KDError, match="differ in data"):
        write_labels(copy, teacher_of(setting), other, latents=True)


def test_windows_without_a_future_and_a_store_without_inputs(setting, grids, tmp_path):
    windows = WindowDataset(grids, "test", past=PAST, lead=0)

    def persist(past):
        return past[:, -1:].expand(-1, LEAD, -1, -1, -1)

    teacher = given_teacher(persist, setting=setting)
    write_labels(tmp_path / "l.zarr", teacher, windows, inputs=False)
    labels = Labels.open(tmp_path / "l.zarr")
    index = np.arange(len(labels))
    assert len(labels) == 16 - PAST + 1
    last = grids.frames[windows.starts + PAST - 1]
    assert np.array_equal(labels.forecasts(index), np.repeat(last[:, None], LEAD, 1))
    assert labels.latents(index) is None
    with pytest.raises(S2KDError, match="holds no inputs"):
        labels.inputs(index)
    with pytest.raises(S2KDError, match="gives no latent"):
        write_labels(tmp_path / "m.zarr", teacher, windows, latents=True)


def test_an_answer_that_is_not_finite_is_refused_with_its_time(setting, windows, tmp_path):
    last = torch.from_numpy(windows.dataset.frames[windows.starts[34] + PAST - 1])

    def call(past):
        future = past[:, -1:].repeat(1, LEAD, 1, 1, 1)
        future[(past[:, -1] == last).all((1, 2, 3))] = torch.nan
        return future

    time = str(windows.dataset.times[windows.starts[34] + PAST - 1])[:19]
    with pytest.raises(S2KDError, match=f"ends at {time} .* not finite"):
        write_labels(tmp_path / "l.zarr", given_teacher(call, setting=setting), windows)


def test_channels_and_units_of_other_data_are_matched(store, grids):
    labels, index = Labels.open(store), np.arange(3)
    grid = dataclasses.replace(
        grids.grid, channels=("u", "t"), units=("km/h", "degC"), mask=grids.grid.mask
    )
    same = labels.check_against(grid, past=2, lead=1, source="mine.nc")
    forecasts, inputs = labels.forecasts(index), labels.inputs(index)
    got = same.forecasts(index)
    np.testing.assert_allclose(got[:, :, 0], forecasts[:, :1, 1] * 3.6, rtol=1e-6)
    np.testing.assert_allclose(got[:, :, 1], forecasts[:, :1, 0] - 273.15, rtol=1e-6)
    np.testing.assert_allclose(same.inputs(index)[:, :, 1], inputs[:, 1:, 0] - 273.15, rtol=1e-6)
    alone = dataclasses.replace(grid, channels=("u",), units=("m s-1",))
    alone = labels.check_against(alone, past=PAST, lead=LEAD, source="mine.nc")
    assert np.array_equal(alone.forecasts(index)[:, :, 0], forecasts[:, :, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": ("t", "v")}, "has no channel 'v' of mine.nc"),
        ({"units": ("K", "kg")}, "'u' is in 'm s-1', which does not convert to 'kg' of mine.nc"),
        ({"step_seconds": 60.0}, "step_seconds"),
        ({"latitude": tuple(np.linspace(71.0, 1.0, 8).tolist())}, "its latitude is 70 to 0"),
        ({"longitude": None}, "longitude is known on one side only"),
        ({"mask": None}, "no values in some cells that exist in the data"),
        ({"past": 4}, "has past=3, mine.nc needs past=4"),
        ({"lead": 3}, "has lead=2, mine.nc needs lead=3"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(store, grids, change, message):
    frames = {"past": PAST, "lead": LEAD} | {
        k: v for k, v in change.items() if k in ("past", "lead")
    }
    grid = {key: value for key, value in change.items() if key not in frames}
    grid = dataclasses.replace(grids.grid, **grid)
    with pytest.raises(S2KDError, match=message):
        Labels.open(store).check_against(grid, **frames, source="mine.nc")


def test_other_folders_are_no_label_stores(tmp_path):
    assert not is_labels(tmp_path)
    with pytest.raises(S2KDError, match="is no label store"):
        Labels.open(tmp_path)
