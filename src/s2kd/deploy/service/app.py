"""The service of one student: its addresses, who may use it, and its page."""

import asyncio
import io
import secrets
import zipfile
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import prometheus_client as prometheus
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles
from starlette.middleware.base import RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware

from s2kd.core.types import GridSpec, S2KDError
from s2kd.data.latest import LatestFrames
from s2kd.data.readers.in_memory import JSON, NETCDF, ZARR, media_type
from s2kd.deploy.forecaster import Forecaster
from s2kd.deploy.service.service import Limits, Service

if TYPE_CHECKING:
    import xarray as xr

SUFFIXES = {NETCDF: ".nc", ZARR: ".zarr.zip", JSON: ".json"}
CONTENT = {k: {"schema": {"type": "object" if k == JSON else "string"}} for k in SUFFIXES}
FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"description": HTTPStatus(status).phrase} for status in (401, 404, 413, 422, 429, 503)
}
DEFAULTS = Limits()


def create_app(
    forecaster: Forecaster,
    *,
    token: str = "",
    latest: Path | None = None,
    limits: Limits = DEFAULTS,
) -> FastAPI:
    """The service of a forecaster, its page at `/` and its description at `/openapi.json`.

    Args:
        forecaster: of any student.
        token: what requests must bring (`Authorization: Bearer …`); empty: nothing, and it answers
            by the names of this machine alone, so that no page of another site can call it.
        latest: a file that the page shows at first.
        limits: bounds on requests.
    """
    service = Service(forecaster, limits)
    app = FastAPI(
        title=f"Forecasts by {forecaster.metadata['student']}",
        version=forecaster.metadata["versions"]["s2kd"],
        lifespan=service.running,
        docs_url=None,  # FastAPI's pages are loaded from another site
        redoc_url=None,
    )
    if not token:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]"])
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_exception_handler(S2KDError, _refused)
    registry = prometheus.CollectorRegistry()
    answers = prometheus.Counter("s2kd_answers", "By status.", ["status"], registry=registry)
    durations = prometheus.Histogram("s2kd_seconds", "From request to answer.", registry=registry)

    @app.middleware("http")
    async def count(request: Request, call: RequestResponseEndpoint) -> Response:
        with durations.time():
            response = await call(request)
        answers.labels(response.status_code).inc()
        return response

    bearer = HTTPBearer(auto_error=False)

    def check_token(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> None:
        sent = credentials.credentials if credentials else ""
        if token and not secrets.compare_digest(sent.encode("latin-1"), token.encode()):
            raise HTTPException(401, "a token is needed", {"WWW-Authenticate": "Bearer"})

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether it answers."""
        return {"status": "ok"}

    guarded: dict[str, Any] = {"dependencies": [Depends(check_token)], "response_class": Response}

    @app.get("/model", **guarded, responses={401: FAILURES[401]})
    async def model() -> Response:
        """What the student is: grid, channels, units, step, training data, error, limits."""
        facts = {**forecaster.metadata, "limits": {"steps": service.steps, "body": limits.body}}
        return Response(msgspec.json.encode(facts), media_type=JSON)

    @app.get("/metrics", **guarded, responses={401: FAILURES[401]})
    async def metrics() -> Response:
        """Counts and times, for Prometheus."""
        content = prometheus.generate_latest(registry)
        return Response(content, media_type=prometheus.CONTENT_TYPE_LATEST)

    past, lead = forecaster.past, forecaster.lead
    counts = range(past + 3 * lead, past - 1, -1)  # as many frames as there are
    guarded |= {"responses": {200: {"content": CONTENT}, **FAILURES}}

    @app.get("/frames", **guarded)
    async def latest_frames(request: Request) -> Response:
        """The last frames of the file that the server was started with."""
        if latest is None:
            raise HTTPException(404, "the server was started without a file to show (--latest)")
        async with service.admitted():
            frames = await service.read(latest, *counts, fill=False, beyond_training=False)
            return await _answer(request, _to_dataset(frames, forecaster.grid), JSON)

    guarded |= {"openapi_extra": {"requestBody": {"required": True, "content": CONTENT}}}

    @app.post("/frames", **guarded)
    async def frames(request: Request, fill: bool = False) -> Response:
        """The last frames of the body as the student takes them: its channels, units and grid."""
        async with service.admitted():
            body = await service.body(request)
            frames = await service.read(body, *counts, fill=fill, beyond_training=False)
            return await _answer(request, _to_dataset(frames, forecaster.grid), media_type(body))

    @app.post("/forecast", **guarded)
    async def forecast(
        request: Request,
        steps: Annotated[int, Query(ge=1, le=service.steps)] = lead,
        fill: bool = False,
        beyond_training: bool = False,
    ) -> Response:
        """Forecast from the last frames of the body: NetCDF, zipped Zarr or JSON.

        The answer is of the body's kind, or of that which `Accept` names. JSON is laid out as by
        `xarray.Dataset.to_dict`; dates are ISO 8601, null is missing. More steps than by default
        roll out; `fill` carries the last value of a cell forward where values are missing.
        """
        async with service.admitted():
            body = await service.body(request)
            frames = await service.read(body, past, fill=fill, beyond_training=beyond_training)
            return await _answer(request, await service.forecast(frames, steps), media_type(body))

    page = files("s2kd.deploy.service").joinpath("page")
    app.mount("/", StaticFiles(directory=str(page), html=True))
    return app


async def _answer(request: Request, dataset: "xr.Dataset", kind: str) -> Response:
    """In the kind that the request accepts, by default in `kind`."""
    accept = request.headers.get("accept", "")
    kind = min((k for k in SUFFIXES if k in accept), key=accept.index, default=kind)
    content = await asyncio.to_thread(_to_bytes, dataset, kind)
    disposition = f'attachment; filename="forecast{SUFFIXES[kind]}"'
    return Response(content, headers={"Content-Disposition": disposition}, media_type=kind)


def _to_bytes(dataset: "xr.Dataset", kind: str) -> bytes:
    """As NetCDF-4, zipped Zarr 2, or JSON with dates and durations by ISO 8601."""
    if kind == NETCDF:
        return bytes(dataset.to_netcdf(engine="h5netcdf"))
    if kind == JSON:
        return msgspec.json.encode(dataset.to_dict(), enc_hook=str)
    import zarr

    files, content = dict[str, Any](), io.BytesIO()
    store = zarr.storage.MemoryStore(files)
    dataset.to_zarr(store, mode="w", zarr_format=2, consolidated=True)
    with zipfile.ZipFile(content, "w") as archive:
        for name, value in files.items():
            archive.writestr(name, value.to_bytes())
    return content.getvalue()


def _to_dataset(past: LatestFrames, grid: GridSpec) -> "xr.Dataset":
    """Frames as the student takes them, missing where no cell exists."""
    import xarray as xr

    rows, columns = ("y", "x") if grid.latitude is None else ("lat", "lon")
    places = {} if grid.latitude is None else {"lat": grid.latitude, "lon": grid.longitude}
    frames = np.where(grid.exists, past.frames, np.nan)
    fields = {
        channel: (("time", rows, columns), frames[:, number], {"units": grid.units[number]})
        for number, channel in enumerate(grid.channels)
    }
    coords = {"time": past.times, **{name: list(values) for name, values in places.items()}}
    return xr.Dataset(fields, coords, {"history": past.history})


async def _refused(_: Request, error: Exception) -> JSONResponse:
    """What is wrong with a body or a setting, as one sentence."""
    detail = str(error)
    if isinstance(error, RequestValidationError):
        detail = "; ".join(f"{e['loc'][-1]}={e['input']!r}: {e['msg']}" for e in error.errors())
    return JSONResponse({"detail": detail}, 422)
