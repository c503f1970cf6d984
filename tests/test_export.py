"""Exported folders: agreement with PyTorch, metadata, refusals."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr

from s2kd.core.recipe import Part
from s2kd.core.types import S2KDError, Statistics
from s2kd.deploy.export import TOLERANCE, _prove, export_student
from s2kd.deploy.forecaster import Forecaster, onnx_step
from s2kd.deploy.quantise import quantise
from s2kd.models.checkpoint import Setting, build_student, metadata_of, save_model
from s2kd.models.forecasters import Student
from s2kd.pipeline.contracts import identity, small_grid

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PART = Part(name="unet", params={"width": 4})
GRID = small_grid(12, 10, wraps=True)
KNOWN = Statistics(
    mean=(55_000.0, -3.0), std=(900.0, 0.5), minimum=(0.0, -9.0), maximum=(1.0, 9.0),
    quantiles={0.5: (54_000.0, -3.0)}, change=(120.0, 0.25),
)  # fmt: skip


def saved(folder, seed=0):
    """On a grid that wraps and must be padded, with scales far from one, forecasting changes."""
    torch.manual_seed(seed)
    setting = Setting(grid=GRID, past=3, lead=2, statistics=KNOWN, predict="change")
    student = build_student(PART, setting)
    student.train()
    for _ in range(3):  # running statistics away from zero and one
        student(frames(4))
    dataset = {"name": "cf", "params": {"path": "/home/me/train.nc"}}
    metadata = metadata_of("student", PART, setting, method="s2kd", seed=42, dataset=dataset)
    save_model(folder, student.eval(), metadata)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("run") / "unet-s2kd-seed42")


@pytest.fixture(scope="module")
def notices():
    return []


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory, notices):
    return export_student(folder, tmp_path_factory.mktemp("to") / "student", say=notices.append)


def frames(batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((batch, 3, 2, 12, 10), generator=generator)
    mean, std = (torch.tensor(v)[:, None, None] for v in (KNOWN.mean, KNOWN.std))
    return mean + std * noise


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 5])
def test_float32_forecasts_as_pytorch_does(folder, exported, batch):
    past = frames(batch, seed=batch).numpy()
    expected = Forecaster.load(folder, format="pytorch").predict(past, steps=5)
    predicted = Forecaster.load(exported, format="float32").predict(past, steps=5)
    assert predicted.shape == (batch, 5, 2, 12, 10)
    std = np.array(KNOWN.std)[:, None, None]
    rounding = np.array([2**-8, 2**-22])[:, None, None]  # of 55,000 and of 3 in float32
    assert (np.abs(predicted - expected) <= 3 * TOLERANCE * std + 2 * rounding).all()


@pytest.mark.slow
def test_the_folder_says_what_it_is(exported):
    config = json.loads((exported / "config.json").read_text(encoding="utf-8"))
    assert {"model.onnx", "model.safetensors", "config.json"} <= {
        p.name for p in exported.iterdir()
    }
    assert config["grid"]["channels"] == ["field0", "field1"]
    assert (config["past"], config["lead"], config["method"], config["seed"]) == (3, 2, "s2kd", 42)
    assert config["statistics"]["maximum"] == [1.0, 9.0]
    assert "/home/me" not in (exported / "config.json").read_text(), "users do not get paths"
    model = onnx.load(str(exported / "model.onnx"))
    onnx.checker.check_model(model)
    metadata = json.loads({entry.key: entry.value for entry in model.metadata_props}["s2kd"])
    assert metadata == {key: config[key] for key in metadata}
    (past,), (future,) = model.graph.input, model.graph.output
    for value, name, shape in ((past, "past", [3, 2, 12, 10]), (future, "future", [2, 2, 12, 10])):
        assert value.name == name
        first, *others = value.type.tensor_type.shape.dim
        assert first.dim_param, "the batch is free"
        assert [dim.dim_value for dim in others] == shape


@pytest.mark.slow
def test_int8_keeps_layers_in_float32_until_its_error_is_in_bounds(exported, tmp_path):
    path, past = exported / "model.onnx", frames(8).numpy()
    expected, std = onnx_step(path)(past), np.array(KNOWN.std)[:, None, None]

    def error_of(file):
        return float(np.abs((onnx_step(file)(past) - expected) / std).mean())

    def int8_weights(file):
        return sum(w.data_type == onnx.TensorProto.INT8 for w in onnx.load(file).graph.initializer)

    quick, exact = tmp_path / "quick.onnx", tmp_path / "exact.onnx"
    assert quantise(path, quick, past, error_of=error_of, bound=1.0) == []
    error, layers = error_of(quick), int8_weights(quick)
    assert 0 < error < 0.1
    assert quick.stat().st_size < path.stat().st_size
    excluded = quantise(path, exact, past, error_of=error_of, bound=error / 2)
    assert 0 < error_of(exact) <= error / 2
    assert 0 < int8_weights(exact) < layers
    assert len(set(excluded)) == len(excluded) > 0
    with pytest.raises(S2KDError, match="the bound is 0"):
        quantise(path, tmp_path / "none.onnx", past, error_of=error_of, bound=0.0)


@pytest.mark.slow
def test_without_the_training_data_there_is_no_int8_and_it_says_so(exported, notices):
    assert notices == [
        "no int8: the student's metadata hold no recipe, so its data cannot be read again"
    ]
    assert not (exported / "model.int8.onnx").exists()
    with pytest.raises(S2KDError, match=r"not exported as 'int8' \(there are float32\)"):
        Forecaster.load(exported, format="int8")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.onnx", "config.json"])
def test_an_altered_folder_is_refused(exported, tmp_path, name):
    altered = tmp_path / "student"
    altered.mkdir()
    for file in exported.iterdir():
        (altered / file.name).write_bytes(file.read_bytes())
    content = (altered / name).read_bytes()
    (altered / name).write_bytes(content.replace(b"field0", b"field2"))
    with pytest.raises(S2KDError, match=rf"{name}: .*altered after"):
        Forecaster.load(altered)


@pytest.mark.slow
def test_an_exported_student_forecasts_from_netcdf_without_heavy_packages(exported, tmp_path):
    latest, out = tmp_path / "latest.nc", tmp_path / "forecast.nc"
    times = np.datetime64("2020-01-01", "ns") + np.arange(3) * np.timedelta64(1, "h")
    axes, past = ("time", "y", "x"), frames(1)[0].numpy()
    fields = {f"field{channel}": (axes, past[:, channel], {"units": "1"}) for channel in (0, 1)}
    record = xr.Dataset(fields, {"time": times}).assign_attrs(history="made by hand")
    record.to_netcdf(latest, engine="h5netcdf")
    script = (
        "import sys\n"
        "from s2kd.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "finally:\n"
        "    print(*sys.modules)"
    )
    words = ("forecast", exported, latest, "--out", out, "--steps", "5", "--beyond-training")
    command = [sys.executable, "-c", script, *map(str, words)]
    modules = set(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    )
    assert {"onnxruntime", "xarray"} <= modules
    heavy = {
        "torch",
        "cfgrib",
        "eccodes",
        "zarr",
        "matplotlib",
        "transformers",
        "cf_xarray",
        "onnx",
    }
    assert not heavy & modules
    with xr.open_dataset(out) as written:
        expected = Forecaster.load(exported).predict(past[None], steps=5)
        np.testing.assert_array_equal(written["field1"].values[0], expected[0, :, 1])


@pytest.mark.slow
def test_a_student_trained_again_is_not_forecast_by_its_old_export(tmp_path):
    folder = saved(tmp_path / "student")
    export_student(folder)
    past = frames(1).numpy()
    first = Forecaster.load(folder).predict(past)
    saved(folder, seed=1)
    second = Forecaster.load(folder).predict(past)
    np.testing.assert_array_equal(second, Forecaster.load(folder, format="pytorch").predict(past))
    assert not np.allclose(first, second)


def test_nothing_but_an_older_export_is_replaced(folder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(S2KDError, match="no folder that `s2kd export` wrote"):
            export_student(folder, place)
    assert (tmp_path / "notes.txt").read_text() == "mine"


class _Repeats(torch.nn.Module):
    """A backbone that forecasts the last two frames again."""

    latent_width, latent_grid = 2, (12, 10)

    def encode(self, past):
        return past[:, -1], (past[:, -2:],)

    def decode(self, latent, carry):
        return carry[0]


@pytest.mark.parametrize(("factor", "agrees"), [(1.0, True), (1.000001, False), (np.nan, False)])
def test_a_file_that_does_not_agree_is_no_proof(tmp_path, factor, agrees):
    """An ONNX graph made by hand that is the student, or nearly, or gives no numbers."""
    from onnx import TensorProto, helper

    metadata = {"grid": GRID.to_dict(), "past": 3, "lead": 2}
    metadata["statistics"] = {"mean": KNOWN.mean, "std": KNOWN.std}
    repeats = Student(_Repeats(), identity(2))
    numbers = [
        helper.make_tensor(name, TensorProto.INT64, [1], [value])
        for name, value in (("from", 1), ("to", 3), ("axis", 1))
    ]
    factor = helper.make_tensor("factor", TensorProto.FLOAT, [], [factor])
    nodes = [
        helper.make_node("Slice", ["past", "from", "to", "axis"], ["last"]),
        helper.make_node("Mul", ["last", "factor"], ["future"]),
    ]
    shapes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", count, 2, 12, 10])
        for name, count in (("past", 3), ("future", 2))
    ]
    graph = helper.make_graph(nodes, "hand", shapes[:1], shapes[1:], [*numbers, factor])
    opset = [helper.make_opsetid("", 18)]
    path = tmp_path / "hand.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
    if agrees:
        _prove(repeats, metadata, path)
        return
    with pytest.raises(S2KDError, match="the ONNX file differs from PyTorch by"):
        _prove(repeats, metadata, path)
