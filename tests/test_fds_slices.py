"""FDS's own slice files, written here byte by byte as FDS's `dump.f90` writes them."""

import json
import struct

import numpy as np
import pytest
from records import frames_of, run_names

from s2kd.core.types import S2KDError
from s2kd.data.readers import readers
from s2kd.data.readers._smokeview import read_smokeview
from s2kd.data.readers.fds_slices import (
    cf_unit,
    channel_name,
    describe_layout,
    namelist_numbers,
    run_parameters,
)

CELL = 0.1
TIMES = np.cumsum(np.where(np.arange(60) % 2, 0.03, 0.05)).astype(np.float32)


def blob(x, z, t):
    """°C: a bump about (x, z) = (1.2, 0.6) on a slope that tells every place from every other."""
    return 20 + 3 * x + 7 * z + 100 * np.exp(-((x - 1.2) ** 2 + (z - 0.6) ** 2) / 0.02) + 10 * t


def wind(x, z, t):
    """m/s."""
    return x - 2 * z + t


def record(content, order="<"):
    """A Fortran sequential unformatted record."""
    mark = struct.pack(order + "i", len(content))
    return mark + content + mark


def slice_file(path, quantity, short, unit, bounds, values, times, order="<"):
    """`values` is (time, z, y, x): x runs fastest, as Fortran's first index does."""
    out = b"".join(record(word.encode().ljust(30), order) for word in (quantity, short, unit))
    out += record(struct.pack(order + "6i", *bounds), order)
    for time, frame in zip(times, values, strict=True):
        out += record(struct.pack(order + "f", time), order)
        out += record(struct.pack(f"{order}{frame.size}f", *frame.ravel().tolist()), order)
    path.write_bytes(out)


def form(pattern, *values):
    """As Fortran's edit descriptors do: `%5d` is I5, `%14.5f` is F14.5."""
    return pattern % values


def trn(letter, nodes, stretched=False):
    lines = [f"TRN{letter}", form("%5d", 1 if stretched else 0)]
    lines += [form("%5d%14.5f%14.5f", 1, 0.5, 0.5)] if stretched else []
    return [*lines, *(form("%5d%14.5f", i, x) for i, x in enumerate(nodes)), " "]


class Case:
    """A run of FDS: meshes, obstacles and slices, collected and then written."""

    def __init__(self, folder, chid="tunnel", order="<"):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.chid, self.order = folder, chid, order
        self.meshes, self.head, self.tail, self.slices = [], [" ", "CHID", f" {chid}", " "], [], 0
        self.files = {}

    def mesh(self, *extents, cell=CELL, obstacles=()):
        nodes = [np.round(np.arange(a, b + cell / 2, cell), 5) for a, b in extents]
        number = len(self.meshes) + 1
        self.meshes.append(nodes)
        cells = [len(n) - 1 for n in nodes]
        lines = ["OFFSET", form("%13.5f" * 3, 0, 0, 0), " ", f"GRID   MESH_{number}"]
        lines += [form("%6d" * 9, *cells, *[0] * 6), " ", "PDIM"]
        lines += [form("%14.5f" * 9, *(e for pair in extents for e in pair), 0, 0, 0), " "]
        for letter, own in zip("XYZ", nodes, strict=True):
            lines += trn(letter, own, stretched=letter == "Z")
        lines += ["OBST", f"          {len(obstacles)}"]
        for k, box in enumerate(obstacles, 1):
            metres = [nodes[i // 2][n] for i, n in enumerate(box)]
            pattern = "%14.5f " * 6 + "%7d " + "%6d " * 6 + " ! %s"
            lines.append(form(pattern, *metres, k, *[0] * 6, f"OB_{number}_{k}"))
        lines += [form("%5d" * 8 + " ! F 1 1 1 1 1 1", *box, -1, -1) for box in obstacles]
        self.head += [*lines, " ", "VENT", form("%5d%5d", 0, 0), " ", "CVENT", "    0", " "]
        return self

    def plane(self, quantity, short, unit, field, *, y, centred=False, times=TIMES, mesh=None):
        """What `&SLCF PBY=y` writes in every mesh that holds the plane."""
        self.slices += 1
        for number, nodes in enumerate(self.meshes, 1):
            if (mesh and number != mesh) or not nodes[1][0] <= y <= nodes[1][-1]:
                continue
            self.files[number] = self.files.get(number, 0) + 1
            at = int(np.argmin(np.abs(nodes[1] - y)))
            bounds = (0, len(nodes[0]) - 1, at, at, 0, len(nodes[2]) - 1)
            x, z = nodes[0], nodes[2]
            if centred:  # the value of cell i at index i, the first one a ghost
                x, z = (np.concatenate([[np.nan], (n[1:] + n[:-1]) / 2]) for n in (x, z))
            values = [field(x[None, None, :], z[:, None, None], t) for t in times]
            values = [np.where(np.isfinite(v), v, -999.0) for v in values]
            name = f"{self.chid}_{number}_{self.files[number]}.sf"
            slice_file(self.folder / name, quantity, short, unit, bounds, values, times, self.order)
            keyword = "SLCC" if centred else "SLCF"
            self.tail += [
                form(
                    "%s%6d # STRUCTURED &%6d%6d%6d%6d%6d%6d ! %6d %6d %6d",
                    *(keyword, number, *bounds, self.slices, centred, 0),
                ),
                f" {name}",
                f" {quantity}",
                f" {short}",
                f" {unit}",
            ]
        return self

    def write(self, extra=()):
        smv = self.folder / f"{self.chid}.smv"
        smv.write_text("\n".join([*self.head, *self.tail, *extra]) + "\n")
        return smv


TUNNEL = ((0, 1), (0, 0.6), (0, 0.8)), ((1, 2), (0, 0.6), (0, 0.8))


def tunnel(folder, chid="tunnel", order="<", heat=0.0, obstacles=((), ()), times=TIMES, **plane):
    case = Case(folder, chid, order)
    for extents, solid in zip(TUNNEL, obstacles, strict=True):
        case.mesh(*extents, obstacles=solid)
    case.plane(
        "TEMPERATURE",
        "temp",
        "C",
        lambda x, z, t: blob(x, z, t) + heat,
        y=0.3,
        times=times,
        **plane,
    )
    case.plane("U-VELOCITY", "U-VEL", "m/s", wind, y=0.3, times=times, **plane)
    return case


def build(path, **settings):
    return readers.build("fds_slices", path=str(path), **settings)


def exists(record):
    """(row, column) bool"""
    if "mask" not in record.coords:
        return np.ones((record.sizes["row"], record.sizes["column"]), dtype=bool)
    return record.mask.values


@pytest.mark.parametrize("order", ["<", ">"])
def test_two_meshes_join_into_one_plane_with_the_top_first(tmp_path, order):
    tunnel(tmp_path, order=order).write()
    record = build(tmp_path, step_seconds=0.04)
    assert list(record) == ["temperature", "u_velocity"]
    assert [variable.attrs["units"] for variable in record.values()] == ["degC", "m s-1"]
    assert "mask" not in record.coords
    assert (record.sizes["row"], record.sizes["column"]) == (9, 21)  # nodes, the shared one once
    frames = frames_of(record)
    x, z = np.arange(21) * CELL, np.arange(9)[::-1, None] * CELL
    clock = TIMES[0] + 0.04 * np.arange(len(frames))
    for k in (0, 1, 7, len(frames) - 1):  # both fields are linear in time
        np.testing.assert_allclose(frames[k, 0], blob(x, z, clock[k]), rtol=1e-5)
        np.testing.assert_allclose(frames[k, 1], wind(x, z, clock[k]), atol=1e-5)
    # (x, z) = (1.2, 0.6), in the second mesh: column 12, the third row from the top
    assert np.unravel_index(frames[0, 0].argmax(), (9, 21)) == (2, 12)
    assert clock[-1] <= TIMES[-1] < clock[-1] + 0.04
    since = (record.time.values - np.datetime64("2000-01-01")) / np.timedelta64(1, "s")
    np.testing.assert_allclose(since, clock, atol=1e-6)


def test_cell_centred_slices_leave_their_ghosts_out(tmp_path):
    tunnel(tmp_path, centred=True).write()
    first = build(tmp_path).temperature[0].values
    x, z = (np.arange(20) + 0.5) * CELL, (np.arange(8)[::-1, None] + 0.5) * CELL
    np.testing.assert_allclose(first, blob(x, z, TIMES[0]), rtol=1e-5)


def test_the_record_begins_and_steps_as_set(tmp_path):
    tunnel(tmp_path).write()
    record = build(tmp_path, skip_seconds=0.5, step_seconds=0.07)
    since = (record.time.values - np.datetime64("2000-01-01")) / np.timedelta64(1, "s")
    np.testing.assert_allclose(since, 0.5 + 0.07 * np.arange(len(since)))
    x, z = np.arange(21) * CELL, np.arange(9)[::-1, None] * CELL
    np.testing.assert_allclose(record.u_velocity[5], wind(x, z, since[5]), atol=1e-5)
    step = build(tmp_path).attrs["step_seconds"]
    assert step == pytest.approx(np.median(np.diff(TIMES)), rel=1e-4)


def test_obstacles_are_masked_where_every_run_has_them(tmp_path):
    # nodes 2 to 5 of x, the lower 3 cells, through the whole width: nodes 3 and 4, 1 and 2 inside
    wall, other = (2, 5, 0, 6, 0, 3), (6, 8, 0, 6, 0, 3)
    solid = np.zeros((9, 21), dtype=bool)
    solid[8 - 2 : 8 - 0, 3:5] = True
    tunnel(tmp_path / "one", obstacles=((wall,), ())).write()
    record = build(tmp_path / "one")
    np.testing.assert_array_equal(exists(record), ~solid)
    # a centred slice: cells 3 to 5 of x (2, 3, 4 from 0), 1 to 3 of z
    tunnel(tmp_path / "cells", obstacles=((wall,), ()), centred=True).write()
    cells = np.zeros((8, 20), dtype=bool)
    cells[8 - 3 :, 2:5] = True
    np.testing.assert_array_equal(exists(build(tmp_path / "cells")), ~cells)
    several = tmp_path / "several"
    tunnel(several / "a", obstacles=((wall, other), ())).write()
    tunnel(several / "b", obstacles=((wall,), ())).write()
    np.testing.assert_array_equal(exists(build(several)), ~solid)
    # one that is taken away on the way is no wall
    tunnel(tmp_path / "door", obstacles=((wall, other), ())).write(
        ["HIDE_OBST     1", "     2      3.50"]
    )
    np.testing.assert_array_equal(exists(build(tmp_path / "door")), ~solid)
    beside = (2, 5, 0, 2, 0, 3)  # ends before the plane
    tunnel(tmp_path / "beside", obstacles=((beside,), ())).write()
    assert exists(build(tmp_path / "beside")).all()


def test_obstacles_of_a_run_that_is_one_cell_thick(tmp_path):
    case = Case(tmp_path).mesh((0, 1), (0, 0.1), (0, 0.8), obstacles=[(2, 5, 0, 1, 0, 3)])
    case.plane("TEMPERATURE", "temp", "C", blob, y=0.0).write()
    solid = np.zeros((9, 11), dtype=bool)
    solid[6:8, 3:5] = True  # as in test_obstacles…: the nodes within
    np.testing.assert_array_equal(exists(build(tmp_path)), ~solid)


def test_places_that_no_mesh_covers_are_masked(tmp_path):
    case = Case(tmp_path).mesh(*TUNNEL[0]).mesh((1, 2), (0, 0.6), (0, 0.4))
    case.plane("TEMPERATURE", "temp", "C", blob, y=0.3).write()
    record = build(tmp_path)
    expected = np.ones((9, 21), dtype=bool)
    expected[:4, 11:] = False
    np.testing.assert_array_equal(exists(record), expected)
    assert record.temperature[0].min() > 20  # filled with a neighbour, not with 0


def test_runs_are_environments_by_folder(tmp_path):
    for number, heat in enumerate((300, 600, 900, 1200)):
        tunnel(tmp_path / f"q{heat}", heat=1000.0 * number).write()
        (tmp_path / f"q{heat}" / "tunnel.fds").write_text(
            f"&HEAD CHID='tunnel' /\n&SURF ID='FIRE / 9', HRRPUA={heat}., COLOR='RED' /\n"
            "&SURF ID='FAN', VEL=-1.5 / a comment\n&REAC SOOT_YIELD=0.01 /\n"
        )
    record = build(tmp_path)
    assert run_names(record) == ["q1200", "q300", "q600", "q900"]
    assert record.attrs["parameters"]["q300"] == {
        "SURF.HRRPUA": 300,
        "SURF.VEL": -1.5,
        "REAC.SOOT_YIELD": 0.01,
        "heat_release": 300,
        "ventilation": 1.5,
    }
    assert record.attrs["split"]["unseen"] == {"heat_release": "extremes"}
    for number, heat in enumerate((300, 600, 900, 1200)):
        temperature = record.temperature[record.run.values == f"q{heat}"]
        assert (np.abs(temperature - 1000 * number) < 300).all()
    (tmp_path / "parameters.json").write_text(json.dumps({"q600": {"heat_release": 5000}}))
    assert build(tmp_path).attrs["parameters"]["q600"]["heat_release"] == 5000
    (tmp_path / "parameters.json").write_text(json.dumps({"q600": {"heat_release": "hot"}}))
    with pytest.raises(S2KDError, match=r"parameters.json: .*wants float"):
        build(tmp_path)


def test_numbers_of_an_input_file(tmp_path):
    text = """
&HEAD CHID='x', TITLE='HRRPUA=9 / not this' /
! &SURF HRRPUA=1e9 /
&SURF ID='BURNER', HRRPUA = 1.5E2,
      TAU_Q=-8. /  &SURF ID='OLD' HRRPUA=3 /
SURF HRRPUA=77777 /
&SURF ID='FAN', VEL=-1.2 /
&WIND SPEED=0.5D0, DIRECTION=45 /
&MESH IJK=10,20,30, XB=0,1,0,2,0,3 /
"""
    numbers = namelist_numbers(text)
    assert numbers["SURF.HRRPUA"] == 150
    assert numbers["SURF.TAU_Q"] == -8
    assert numbers["SURF.VEL"] == -1.2
    assert numbers["WIND.SPEED"] == 0.5
    assert not any("HEAD" in name for name in numbers)
    smv, sidecar = tmp_path / "case.smv", tmp_path / "parameters.json"
    (tmp_path / "run.fds").write_text(text)
    sidecar.write_text(json.dumps({"case": {"wind": 3.0}}))
    values = run_parameters(tmp_path, {"case": smv})["case"]
    assert (values["heat_release"], values["ventilation"], values["wind"]) == (150, 1.2, 3)
    (tmp_path / "other.fds").write_text("&SURF HRRPUA=1 /")
    assert "heat_release" not in run_parameters(tmp_path, {"case": smv})["case"]
    (tmp_path / "case.fds").write_text("&SURF HRRPUA=2 /")
    assert run_parameters(tmp_path, {"case": smv})["case"]["heat_release"] == 2


def test_planes_and_quantities_are_chosen(tmp_path):
    case = tunnel(tmp_path)
    case.plane("TEMPERATURE", "temp", "C", lambda x, z, t: blob(x, z, t) + 500, y=0.5).write()
    with pytest.raises(S2KDError, match=r"choose one \(there are 'y = 0.3 m', 'y = 0.5 m'"):
        build(tmp_path)
    for asked in ("y = 0.5 m", "Y=0.5", "y=0.50m"):
        record = build(tmp_path, plane=asked)
        assert list(record) == ["temperature"]
        assert record.temperature.min() > 500
    record = build(tmp_path, plane="y=0.3", quantities=["U-VELOCITY", "temperature"])
    assert list(record) == ["u_velocity", "temperature"]
    record = build(tmp_path / "tunnel.smv", plane="y=0.3", crop=(1, 9, 0, 20), pool=4)
    assert record.temperature.shape[1:] == (2, 5)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"plane": "y=0.4"}, r"has no plane 'y=0.4' \(there are 'y = 0.3 m'\)"),
        ({"plane": "middle"}, "has no plane 'middle'"),
        ({"quantities": ["TEMPERATUR"]}, "no quantity 'temperatur'; did you mean 'temperature'"),
        (
            {"skip_seconds": 9},
            "leave nothing of run 'tunnel', .* from 0.05 to 2.4 s",
        ),
        ({"step_seconds": -1.0}, "must be positive"),
        ({"pool": 2}, "fds_slices: pool=2 does not divide 9×21 cells"),
    ],
)
def test_bad_settings_are_named(tmp_path, params, said):
    tunnel(tmp_path).write()
    with pytest.raises(S2KDError, match=said):
        build(tmp_path, **params)


# --- files that are not whole --------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 4, 100, 900])
def test_an_incomplete_frame_is_left_out_with_a_notice(tmp_path, cut):
    smv = tunnel(tmp_path).write()
    complete = build(smv, step_seconds=0.04)
    assert complete.attrs["notices"] == ()
    expected = frames_of(complete)
    torn = tmp_path / "tunnel_2_1.sf"
    torn.write_bytes(torn.read_bytes()[:-cut])
    record = build(smv, step_seconds=0.04)
    lost = -(-cut // (4 * (5 + 11 * 9)))
    (notice,) = record.attrs["notices"]
    assert "tunnel_2_1.sf ends within a frame, or before the others" in notice
    assert f"{60 - lost} complete frames are read" in notice
    end = (record.time.values[-1] - np.datetime64("2000-01-01")) / np.timedelta64(1, "s")
    assert TIMES[59 - lost] - 0.041 < end < TIMES[59 - lost] + 1e-6
    np.testing.assert_allclose(frames_of(record), expected[: record.sizes["time"]], rtol=1e-5)


def test_frames_written_again_after_a_restart_count_once(tmp_path):
    times = np.concatenate([TIMES[:30], TIMES[25:]])
    tunnel(tmp_path / "restart", times=times).write()
    tunnel(tmp_path / "plain").write()
    restarted, plain = (build(tmp_path / n, step_seconds=0.04) for n in ("restart", "plain"))
    np.testing.assert_allclose(frames_of(restarted), frames_of(plain), rtol=1e-6)
    assert "5 frames were written again" in restarted.attrs["notices"][0]


def test_damaged_files_are_named(tmp_path):
    smv = tunnel(tmp_path).write()
    file = tmp_path / "tunnel_1_1.sf"
    whole = file.read_bytes()

    def refused(content, said):
        file.write_bytes(content)
        with pytest.raises(S2KDError, match=said):
            build(smv)
        file.write_bytes(whole)

    refused(b"", "tunnel_1_1.sf: does not begin as a slice file")
    refused(whole[:80], "does not begin as a slice file")
    refused(b"<html>" + whole, "does not begin as a slice file")
    refused(whole[:146], r"0 frames of tunnel_1_1.sf are complete; two are needed")
    shifted = whole[:146] + b"\0\0\0\0" + whole[146:]
    refused(shifted, r"tunnel_1_1.sf: frame 0 is not where it should be")
    moved = whole[:118] + struct.pack("<6i", 0, 10, 2, 2, 0, 8) + whole[142:]
    refused(moved, r"holds nodes \(0, 10, 2, 2, 0, 8\), the .smv file says \(0, 10, 3, 3, 0, 8\)")
    file.unlink()
    with pytest.raises(S2KDError, match=r"tunnel_1_1.sf: cannot be read .No such file"):
        build(smv)


def test_a_smokeview_file_that_is_not_whole(tmp_path):
    smv = tunnel(tmp_path).write()
    text = smv.read_text()
    for said, broken in (
        ("it holds no GRID", "hello\n"),
        ("a GRID lacks TRNX, TRNY or TRNZ", text[: text.index("TRNZ")]),
        ("a slice lies in mesh 7", text.replace("SLCF     1", "SLCF     7", 1)),
        ("gives no six bounds", text.replace("     8 !", " !", 1)),
        ("outside of mesh 1", text.replace("&     0    10", "&     0    99", 1)),
        ("not a complete Smokeview file", text[: text.rindex(" U-VEL")]),
    ):
        smv.write_text(broken)
        with pytest.raises(S2KDError, match=said):
            build(tmp_path)
    smv.write_text(text[: text.index("SLCF")])
    with pytest.raises(S2KDError, match="names no plane of slices"):
        build(tmp_path)
    smv.unlink()
    with pytest.raises(S2KDError, match=r"must be a \.smv file"):
        build(tmp_path)


def test_volumes_are_no_planes(tmp_path):
    case = Case(tmp_path).mesh(*TUNNEL[0])
    case.tail += ["SLCF     1 # STRUCTURED &     0    10     0     6     0     8 !      1", " a.sf"]
    case.tail += [" TEMPERATURE", " temp", " C"]
    with pytest.raises(S2KDError, match="names no plane of slices"):
        build(case.write())


def test_meshes_and_runs_that_do_not_fit(tmp_path):
    case = Case(tmp_path / "cells").mesh(*TUNNEL[0]).mesh(*TUNNEL[1], cell=0.2)
    case.plane("TEMPERATURE", "temp", "C", blob, y=0.3).write()
    with pytest.raises(S2KDError, match=r"choose one|has other cells along"):
        build(tmp_path / "cells")
    case = Case(tmp_path / "half").mesh(*TUNNEL[0]).mesh((1, 2), (0, 0.6), (0, 0.8), cell=0.2)
    case.plane("TEMPERATURE", "temp", "C", blob, y=0.2).write()
    with pytest.raises(S2KDError, match=r"mesh 2 has other cells along \w than .*0.1 m and 0.2 m"):
        build(tmp_path / "half")
    tunnel(tmp_path / "runs" / "a").write()
    other = Case(tmp_path / "runs" / "b").mesh(*TUNNEL[0])
    other.plane("TEMPERATURE", "temp", "C", blob, y=0.3)
    other.plane("U-VELOCITY", "U-VEL", "m/s", wind, y=0.3).write()
    with pytest.raises(S2KDError, match=r"run 'b' has points \(9, 11\), run 'a' \(9, 21\)"):
        build(tmp_path / "runs")
    third = Case(tmp_path / "late").mesh(*TUNNEL[0]).mesh(*TUNNEL[1])
    third.plane("TEMPERATURE", "temp", "C", blob, y=0.3, mesh=1)
    third.plane("TEMPERATURE", "temp", "C", blob, y=0.3, mesh=2, times=TIMES + 0.02).write()
    with pytest.raises(S2KDError, match="was written at other times than"):
        build(tmp_path / "late")


def test_names_and_units():
    assert channel_name("SOOT EXTINCTION COEFFICIENT") == "soot_extinction_coefficient"
    units = {"C": "degC", "kW/m3": "kW m-3", "m/s": "m s-1", "1/m": "m-1", "mol/mol": "1"}
    assert {unit: cf_unit(unit) for unit in units} == units
    assert [cf_unit(u) for u in ("m", "", "kg/m3")] == ["m", "1", "kg m-3"]


def test_the_index_of_a_run(tmp_path):
    wall = (2, 5, 0, 6, 0, 3)
    first, second, *_ = read_smokeview(tunnel(tmp_path, obstacles=((wall,), ())).write())
    np.testing.assert_allclose(second.mesh.nodes[0], np.linspace(1, 2, 11), atol=1e-6)
    np.testing.assert_allclose(first.mesh.nodes[2], np.linspace(0, 0.8, 9), atol=1e-6)
    assert first.mesh.obstacles == [wall]
    assert (first.quantity, first.unit, first.bounds) == ("TEMPERATURE", "C", (0, 10, 3, 3, 0, 8))


def test_the_plane_with_most_quantities_is_described(tmp_path):
    for heat in (300, 600):
        case = tunnel(tmp_path / f"q{heat}")
        case.plane("TEMPERATURE", "temp", "C", blob, y=0.5).write()
    described = describe_layout(tmp_path)
    assert described.reader == "fds_slices"
    assert described.lines[0] == "FDS slices, 2 runs"
    assert described.settings == {"path": str(tmp_path), "plane": "y = 0.3 m"}
    assert run_names(readers.build("fds_slices", **described.settings)) == ["q300", "q600"]
    single = describe_layout(tmp_path / "q300" / "tunnel_1_1.sf")
    assert single.lines[0] == "FDS slices, 1 run"
    (tmp_path / "q300" / "tunnel.smv").write_text("hello")
    assert "it holds no GRID" in describe_layout(tmp_path / "q300").problems[0]
    assert describe_layout(tmp_path / "q300" / "notes.txt") is None
