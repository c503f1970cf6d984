"""The verb `serve`: a student over HTTP."""

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from s2kd.cli.options import Folder, Student
from s2kd.core.errors import S2KDError

TOKEN, LOOPBACK = "S2KD_TOKEN", ("127.0.0.1", "localhost")


def serve(
    folder: Folder,
    student: Student = "",
    latest: Annotated[
        Path | None,
        typer.Option("--latest", metavar="FILE", help="A gridded file that the page shows first."),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Any address but this machine's own needs S2KD_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: a free one.")] = 8000,
    max_body: Annotated[
        int, typer.Option("--max-body", metavar="MIB", min=1, help="Largest file to take.")
    ] = 32,
) -> None:
    """Forecast over HTTP, with a page to look at. S2KD_TOKEN: a secret that requests must bring."""
    try:
        import uvicorn

        from s2kd.deploy.service.app import create_app
        from s2kd.deploy.service.service import Limits
    except ImportError as error:
        raise S2KDError(f"serve needs {error.name}: pip install 's2kd[serve]'") from None
    from s2kd.deploy.forecaster import Forecaster

    token = os.environ.get(TOKEN, "")
    if not token and host not in LOOPBACK:
        raise S2KDError(
            f"--host {host} can be reached from other machines: set {TOKEN} to a secret that "
            "requests must bring"
        )
    limits = Limits(body=max_body * 2**20)
    forecaster = Forecaster.load(folder, student=student)
    app = create_app(forecaster, token=token, latest=latest, limits=limits)
    try:
        listener = socket.create_server((host, port), backlog=2048)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise S2KDError(f"--host {host} --port {port}: {reason}; give another") from None
    with listener:
        print(f"http://{host}:{listener.getsockname()[1]}", flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # after uvicorn has answered all
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listener])
