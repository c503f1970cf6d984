"""Teachers by name: callables, ONNX files and folders of ours, checked against the data."""

import dataclasses
import textwrap

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from road import TEACHER
from torch import nn

from s2kd.core.recipe import Part
from s2kd.core.tensors import Forecast
from s2kd.core.types import S2KDError
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.models.checkpoint import (
    Setting,
    build_student,
    build_teacher,
    metadata_of,
    save_model,
)
from s2kd.models.given import content_digest, frames_wanted, given_teacher, open_teacher
from s2kd.training.targets import LiveTargets

PAST, LEAD = 3, 2


@pytest.fixture(scope="module")
def setting(blobs):
    return Setting(
        grid=blobs.grid,
        past=PAST,
        lead=LEAD,
        statistics=statistics(blobs, lead=LEAD),
        predict="change",
    )


@pytest.fixture(scope="module")
def past(blobs):
    return WindowDataset(blobs, "train", past=PAST, lead=LEAD).gather(torch.arange(5)).past


def student_of(setting):
    torch.manual_seed(0)
    return build_student(Part(name="unet", params={"width": 4}), setting).eval()


def saved(folder, model, setting, kind, part, **origin):
    save_model(folder, model, metadata_of(kind, part, setting, **origin))
    return folder


@pytest.fixture(scope="module")
def student_folder(setting, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "students" / "unet-baseline-seed1"
    part = Part(name="unet", params={"width": 4})
    return saved(folder, student_of(setting), setting, "student", part, validation=0.5)


def last_frame(past):
    return past[:, -1:].expand(-1, LEAD, -1, -1, -1)


def test_a_callable_by_name_is_persistence(setting, past, tmp_path, monkeypatch):
    (tmp_path / "heavy_one.py").write_text(
        textwrap.dedent("""
            class Box:
                pass

            box = Box()
            box.persist = lambda past: past[:, -1:].repeat(1, 2, 1, 1, 1)
        """)
    )
    monkeypatch.chdir(tmp_path)
    teacher = open_teacher("heavy_one:box.persist", setting=setting)
    answer = teacher(past)
    assert torch.equal(answer.future, last_frame(past))
    assert answer.latent is None
    assert (teacher.latent_width, teacher.reads) == (None, False)
    assert teacher.extent == (8, 8)


def test_the_best_student_of_a_run_answers_as_itself(setting, past, student_folder):
    worse = student_folder.parent / "unet-baseline-seed2"
    other = build_student(Part(name="unet", params={"width": 4}), setting)
    saved(worse, other, setting, "student", Part(name="unet", params={"width": 4}), validation=0.9)
    teacher = open_teacher(str(student_folder.parent.parent), setting=setting)
    want = student_of(setting)(past)
    assert torch.equal(teacher(past).future, want.future)
    assert torch.equal(teacher(past).latent, want.latent)
    assert teacher.latent_width == want.latent.shape[1]
    assert frames_wanted(str(student_folder)) == (PAST, LEAD)


def test_a_teacher_without_text_is_asked_without_and_one_that_reads_is_refused(
    setting, past, tmp_path, blobs
):
    for reads in (False, True):
        spec = replace(TEACHER, dropout=0.0)
        model = build_teacher(spec, setting, text_width=3, reads=reads).eval()
        folder = tmp_path / str(reads)
        saved(folder, model, setting, "teacher", spec, text_width=3, reads=reads)
        if reads:
            with pytest.raises(S2KDError, match="reads narratives"):
                open_teacher(str(folder), setting=setting)
            with pytest.raises(S2KDError, match="reads narratives"):
                given_teacher(model, setting=setting)
            continue
        teacher = open_teacher(str(folder), setting=setting)
        assert torch.equal(teacher(past).future, model(past, None).future)
        windows, index = WindowDataset(blobs, "train", past=PAST, lead=LEAD), torch.arange(4)
        targets = [LiveTargets(t, windows) for t in (teacher, model)]
        assert targets[0].extent == targets[1].extent
        first, second = (t.gather(index, "cpu") for t in targets)
        assert torch.equal(first.forecast, second.forecast)
        assert torch.equal(first.latent, second.latent)


def test_channels_in_another_order_are_put_right(setting, tmp_path):
    """The data have (b, a), the model was trained on (a, b)."""
    grid = dataclasses.replace(setting.grid, channels=("a", "b"), units=("K", "m"))
    twice = {k: v * 2 for k, v in vars(setting.statistics).items() if k != "quantiles"}
    twice["std"] = (1.0, 5.0)
    twice["mean"] = (0.0, 7.0)
    stats = dataclasses.replace(setting.statistics, **twice, quantiles={})
    own = dataclasses.replace(setting, grid=grid, statistics=stats)
    model, part = student_of(own), Part(name="unet", params={"width": 4})
    folder = saved(tmp_path / "m", model, own, "student", part)
    swapped = dataclasses.replace(grid, channels=("b", "a"), units=("m", "degK"))
    teacher = open_teacher(str(folder), setting=dataclasses.replace(own, grid=swapped))
    frames = torch.randn(2, PAST, 2, 8, 8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(teacher(frames.flip(2)).future, model(frames).future.flip(2))


def test_frames_in_other_units_are_converted_for_the_model_and_back(setting, tmp_path):
    """The model was trained in kelvin; 0 degC are 273.15 K."""
    in_kelvin = dataclasses.replace(setting, grid=dataclasses.replace(setting.grid, units=("K",)))
    model = student_of(in_kelvin)
    folder = saved(
        tmp_path / "m", model, in_kelvin, "student", Part(name="unet", params={"width": 4})
    )
    in_celsius = dataclasses.replace(setting.grid, units=("degC",))
    teacher = open_teacher(str(folder), setting=dataclasses.replace(setting, grid=in_celsius))
    celsius = torch.randn(2, PAST, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    expected = model(celsius + 273.15).future - 273.15
    torch.testing.assert_close(teacher(celsius).future, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"past": 4}, "takes past=3, but the windows have 4"),
        ({"lead": 1}, "takes lead=2, but the windows have 1"),
        ({"channels": ("c",)}, "is for the channels density; the data have c"),
        ({"units": ("K",)}, "'density' is in '1', but in 'K' in the data"),
        ({"step_seconds": 60.0}, "step_seconds"),
        ({"latitude": tuple(map(float, range(8, 0, -1)))}, "latitude is known on one side only"),
    ],
)
def test_a_model_of_other_data_is_refused_by_name(setting, student_folder, change, message):
    grid = dataclasses.replace(setting.grid, units=("1",), channels=("density",))
    model = dataclasses.replace(setting, grid=grid)
    folder = student_folder.parents[2] / "of-density"
    if not folder.exists():
        saved(folder, student_of(model), model, "student", Part(name="unet", params={"width": 4}))
    frames = {key: value for key, value in change.items() if key in ("past", "lead")}
    of_grid = {key: value for key, value in change.items() if key not in frames}
    other = dataclasses.replace(model, grid=dataclasses.replace(grid, **of_grid), **frames)
    with pytest.raises(S2KDError, match=message):
        open_teacher(str(folder), setting=other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda past: past, r"gives \(2, 3, 1, 8, 8\) .* must be \(2, 2, 1, 8, 8\)"),
        (lambda past: 3, "gives int"),
        (lambda past: (last_frame(past), past), r"its latent is \(2, 3, 1, 8, 8\)"),
        (lambda past: past @ past.new_zeros(5), "fails on past frames .*RuntimeError"),
    ],
)
def test_wrong_shapes_are_refused_before_anything_is_labelled(setting, call, message):
    with pytest.raises(S2KDError, match=message):
        given_teacher(call, setting=setting, name="mine")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", "no such folder; a teacher is package.module:callable"),
        ("../evil:call", "no such folder"),
        ("os:nope", "'os' has no 'nope'"),
        ("no_such_module:call", "neither in .* nor installed"),
        ("torch.nn:Linear", "is a class"),
        ("math:pi", "is float"),
        ("none.onnx", "no such file"),
    ],
)
def test_a_name_that_leads_nowhere_says_so(setting, spec, message):
    with pytest.raises(S2KDError, match=message):
        open_teacher(spec, setting=setting)


def test_the_digest_follows_weights_that_a_function_only_refers_to():
    weights = nn.Linear(3, 3)

    def call(past):
        return weights(past)

    before = content_digest(call)
    assert content_digest(call) == before
    with torch.no_grad():
        weights.bias[0] += 1e-6
    assert content_digest(call) != before
    student = nn.Sequential(weights)
    before = content_digest(student)
    weights.weight.data.mul_(2)
    assert content_digest(student) != before


def write_onnx(path, batch, shift):
    """Persistence plus the weight `shift`, which lies in a file beside; the latent is the mean."""
    import onnx
    from onnx import TensorProto, helper

    last = onnx.numpy_helper.from_array(np.array([PAST - 1, PAST - 1]), "last")
    weight = onnx.numpy_helper.from_array(np.full((1, LEAD, 1, 8, 8), shift, "f4"), "weight")
    axis = onnx.numpy_helper.from_array(np.array([1]), "axis")
    nodes = [
        helper.make_node("Gather", ["frames", "last"], ["twice"], axis=1),
        helper.make_node("Add", ["twice", "weight"], ["out"]),
        helper.make_node("ReduceMean", ["frames", "axis"], ["latent"], keepdims=0),
    ]
    array = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "heavy",
        [array("frames", TensorProto.FLOAT, [batch, PAST, 1, 8, 8])],
        [
            array("out", TensorProto.FLOAT, [batch, LEAD, 1, 8, 8]),
            array("latent", TensorProto.FLOAT, [batch, 1, 8, 8]),
        ],
        [last, weight, axis],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.with_suffix(".bin").unlink(missing_ok=True)
    onnx.save(
        model, str(path), save_as_external_data=True, location=f"{path.stem}.bin",
        size_threshold=100,
    )  # fmt: skip


@pytest.mark.parametrize("batch", [1, "batch"])
def test_an_onnx_file_of_anyone(setting, past, tmp_path, batch):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "heavy.onnx"
    write_onnx(path, batch, 1.0)
    teacher = open_teacher(str(path), setting=setting)
    answer = teacher(past)
    torch.testing.assert_close(answer.future, last_frame(past) + 1)
    torch.testing.assert_close(answer.latent, past.mean(1))
    assert frames_wanted(str(path)) == (PAST, LEAD)
    with pytest.raises(S2KDError, match=r"fails on past frames .*Got: 5 Expected: 3"):
        open_teacher(str(path), setting=dataclasses.replace(setting, past=5))
    before, file = teacher.digest, path.read_bytes()
    write_onnx(path, batch, 2.0)
    assert path.read_bytes() == file, "only the file of weights differs"
    assert open_teacher(str(path), setting=setting).digest != before
    path.write_bytes(file[:50])
    with pytest.raises(S2KDError, match="cannot be opened as ONNX"):
        open_teacher(str(path), setting=setting)


def test_a_forecast_of_ours_keeps_its_latent(setting, past):
    def call(frames):
        return Forecast(future=last_frame(frames), latent=frames[:, 0])

    assert torch.equal(given_teacher(call, setting=setting)(past).latent, past[:, 0])
