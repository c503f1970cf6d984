"""A local server of chat completions that can be told to misbehave, for tests and by hand.

python tests/chat_server.py [SEED]      prints its address; misbehaves at random with a seed
"""

import base64
import hashlib
import json
import random
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "tiny-vl-2026-01"
REFUSED = ("429", "500", "502", "503")
BROKEN = ("cut", "half", "drop", "nothing", "html", "badjson", "list", "nochoice")
EMPTY = ("empty", "blank", "null", "length", "filter")
KINDS = (*REFUSED, *BROKEN, *EMPTY)


class ChatServer(ThreadingHTTPServer):
    """`behave(request_number, key) -> kind` says what to do; "ok" answers well."""

    daemon_threads = True
    request_queue_size = 256
    block_on_close = False

    def __init__(self, behave=lambda number, key: "ok", *, slow=0.0, retry_after="0.01"):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behave, self.slow, self.retry_after = behave, slow, retry_after
        self.lock = threading.Lock()
        self.requests, self.bodies, self.keys = 0, [], []
        self.given, self.told, self.under_way, self.most_under_way = Counter(), Counter(), 0, 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, address):
        """A client that went away is what several tests are about."""


def at_random(seed, share=0.3, kinds=KINDS, most=6):
    """Misbehaves in `share` of the requests, but at most so often to the same question.

    Which request comes when is the threads' affair: without a bound, one question in thousands
    would be refused as often as a narrator asks.
    """
    drawn, bad = random.Random(seed), Counter()

    def behave(number, key):
        if bad[key] >= most or drawn.random() >= share:
            return "ok"
        bad[key] += 1
        return drawn.choice(kinds)

    return behave


def answer(text, reason="stop"):
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": reason,
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def words_for(key):
    """What the server says of the picture with this hash."""
    return f"The field {key} is rising in the north. It moves eastward."


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = body["messages"][0]["content"]
        (image,) = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        header, _, data = image.partition(",")
        assert header == "data:image/png;base64"
        key = hashlib.sha256(base64.b64decode(data)).hexdigest()[:12]
        with server.lock:
            server.requests += 1
            kind = server.behave(server.requests, key)
            server.given[kind] += 1
            server.keys.append(self.headers.get("Authorization"))
            if len(server.bodies) < 4:
                server.bodies.append(body)
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        try:
            if server.slow:
                time.sleep(server.slow)
            self._behave(kind, key)
        finally:
            with server.lock:
                server.under_way -= 1

    def _behave(self, kind, key):
        text = words_for(key)
        if kind.isdigit():
            return self._send(
                {"error": {"message": f"no: {self.headers.get('Authorization')}", "code": None}},
                status=int(kind),
                more={"Retry-After": self.server.retry_after} if kind == "429" else {},
            )
        whole = json.dumps(answer(text)).encode()
        match kind:
            case "ok":
                with self.server.lock:
                    self.server.told[key] += 1
                return self._send(answer(text))
            case "empty":
                return self._send(answer(""))
            case "blank":
                return self._send(answer("  \n"))
            case "null":
                return self._send(answer(None))
            case "length":
                return self._send(answer("The field is ris", "length"))
            case "long":
                return self._send(answer(f"{text} And then it", "length"))
            case "filter":
                return self._send(answer("I cannot.", "content_filter"))
            case "list":
                return self._send([1, 2])
            case "nochoice":
                return self._send({**answer(text), "choices": []})
            case "nothing":
                return self._raw(b"")
            case "html":
                return self._raw(b"<html>busy</html>", kind="text/html")
            case "badjson":
                return self._raw(whole[: len(whole) // 2])
            case "quota":
                return self._send(
                    {"error": {"message": "quota", "code": "insufficient_quota"}}, status=429
                )
            case "half" | "cut":  # promises more than it sends
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(whole)))
                self.end_headers()
                self.wfile.write(whole[: len(whole) // 2] if kind == "half" else b"")
                self.close_connection = True
            case "drop":
                self.close_connection = True
            case "dribble":
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(whole)))
                self.end_headers()
                for byte in whole:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(0.05)
            case "hang":
                time.sleep(3)
                self.close_connection = True
            case _:
                raise ValueError(kind)
        return None

    def _send(self, value, status=200, more=None):
        self._raw(json.dumps(value).encode(), status=status, more=more)

    def _raw(self, content, *, status=200, kind="application/json", more=None):
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            **(more or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else None
    with ChatServer(at_random(seed) if seed is not None else lambda n, k: "ok") as server:
        print(server.url, flush=True)
        sys.stdin.read()
        print(json.dumps({"requests": server.requests, "given": dict(server.given)}), flush=True)
