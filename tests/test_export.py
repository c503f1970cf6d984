import json

import numpy as np
import pytest
import torch

from s2kd.core.recipe import Part
from s2kd.core.types import S2KDError, Statistics
from s2kd.deploy.export import TOLERANCE, _prove, export_onnx, run_onnx
from s2kd.deploy.forecaster import Forecaster
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


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory):
    """On a grid that wraps and must be padded, with scales far from one, forecasting changes."""
    torch.manual_seed(0)
    setting = Setting(grid=GRID, past=3, lead=2, statistics=KNOWN, predict="change")
    student = build_student(PART, setting)
    student.train()
    for _ in range(3):  # running statistics away from zero and one
        student(frames(4))
    folder = tmp_path_factory.mktemp("student")
    metadata = metadata_of("student", PART, setting, method="s2kd", seed=42, recipe={"long": "one"})
    save_model(folder, student.eval(), metadata)
    return Forecaster.load(folder)


def frames(batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((batch, 3, 2, 12, 10), generator=generator)
    mean, std = (torch.tensor(v)[:, None, None] for v in (KNOWN.mean, KNOWN.std))
    return mean + std * noise


@pytest.fixture(scope="module")
def exported(forecaster, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "student.onnx"
    return path, export_onnx(forecaster, path)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_file_forecasts_as_pytorch_does(forecaster, exported, batch):
    past = frames(batch, seed=batch).numpy()
    want, got = forecaster.predict(past), run_onnx(exported[0], past)
    assert got.shape == (batch, 2, 2, 12, 10)
    scale = np.abs(want).max((0, 1, 3, 4), keepdims=True)
    assert (np.abs(got - want) / scale).max() <= TOLERANCE <= 1e-5
    # the change itself agrees too: it is small beside the field it is added to
    moved = np.abs(got - want)[:, :, 1].max() / np.abs(want - past[:, -1:])[:, :, 1].max()
    assert moved < 1e-4


@pytest.mark.slow
def test_the_file_says_what_it_is(exported):
    path, metadata = exported
    model = onnx.load(str(path))
    onnx.checker.check_model(model)
    told = json.loads({entry.key: entry.value for entry in model.metadata_props}["s2kd"])
    assert told == json.loads(json.dumps(metadata))
    assert told == json.loads((path.parent / "student.onnx.json").read_text(encoding="utf-8"))
    assert told["grid"]["channels"] == ["field0", "field1"]
    assert told["grid"]["units"] == ["1", "1"]
    assert (told["past"], told["lead"], told["method"], told["seed"]) == (3, 2, "s2kd", 42)
    assert "recipe" not in told, "the file goes to users, not to those who train"
    (given,), (gives,) = model.graph.input, model.graph.output
    for value, name, shape in ((given, "past", [3, 2, 12, 10]), (gives, "future", [2, 2, 12, 10])):
        assert value.name == name
        first, *others = value.type.tensor_type.shape.dim
        assert first.dim_param, "the batch is free"
        assert [dim.dim_value for dim in others] == shape
    # one file is all there is to carry
    assert sorted(p.name for p in path.parent.iterdir()) == ["student.onnx", "student.onnx.json"]


@pytest.mark.parametrize("name", ["model", "model.json", "model.safetensors", "."])
def test_no_file_of_the_students_own_is_written_over(forecaster, tmp_path, name):
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(S2KDError, match=r"ends in \.onnx"):
        export_onnx(forecaster, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]
    assert (tmp_path / "model.json").read_text() == "{}"


class _Repeats(torch.nn.Module):
    """A backbone that forecasts the last two frames again."""

    latent_width, latent_grid = 2, (12, 10)

    def encode(self, past):
        return past[:, -1], (past[:, -2:],)

    def decode(self, latent, carry):
        return carry[0]


@pytest.mark.parametrize(("factor", "agrees"), [(1.0, True), (1.001, False), (np.nan, False)])
def test_a_file_that_does_not_agree_is_no_proof(tmp_path, factor, agrees):
    """An ONNX graph made by hand that is the student, or nearly, or gives no numbers."""
    from onnx import TensorProto, helper

    metadata = {"grid": GRID.to_dict(), "past": 3, "lead": 2}
    metadata["statistics"] = {"mean": KNOWN.mean, "std": KNOWN.std}
    repeats = Forecaster(Student(_Repeats(), identity(2)), metadata)
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
        _prove(repeats, path)
        return
    with pytest.raises(S2KDError, match="the ONNX file differs from PyTorch by"):
        _prove(repeats, path)
