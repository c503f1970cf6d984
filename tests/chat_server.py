"""A local server of chat completions that can be told to misbehave."""

import base64
import hashlib
import json
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "tiny-vl-2026-01"
REFUSED = ("429", "500", "502", "503")
BROKEN = ("cut", "drop", "nothing", "html", "badjson", "list", "nochoice")
EMPTY = ("empty", "null", "length", "filter")
KINDS = (*REFUSED, *BROKEN, *EMPTY)


class ChatServer(ThreadingHTTPServer):
    """`behave(request_number, key) -> kind` chooses a behaviour; "ok" answers well."""

    daemon_threads = True
    request_queue_size = 256
    block_on_close = False

    def __init__(self, behave=lambda number, key: "ok", *, slow=0.0, retry_after="0.01", form=None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behave, self.slow, self.retry_after, self.form = behave, slow, retry_after, form
        self.lock = threading.Lock()
        self.requests, self.bodies, self.keys = 0, [], []
        self.kinds, self.answered, self.in_flight, self.most_in_flight = Counter(), Counter(), 0, 0

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
        """A client that closes the connection is what several tests are about."""


def at_random(seed, share=0.3, kinds=KINDS, most=3):
    """Misbehaves in `share` of the requests, at most `most` times for the same question."""
    random_kind, bad = random.Random(seed), Counter()

    def behave(number, key):
        if bad[key] >= most or random_kind.random() >= share:
            return "ok"
        bad[key] += 1
        return random_kind.choice(kinds)

    return behave


def completion(text, reason="stop"):
    message = {"role": "assistant", "content": text}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
    }


def words_for(key):
    """The server's answer to the picture with this hash."""
    return f"The field {key} is rising in the north. It moves eastward."


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = body["messages"][0]["content"]
        content = parts[-1]["text"].encode()
        if parts[0]["type"] == "image_url":
            header, _, data = parts[0]["image_url"]["url"].partition(",")
            assert header == "data:image/png;base64"
            content = base64.b64decode(data)
        key = hashlib.sha256(content).hexdigest()[:12]
        with server.lock:
            server.requests += 1
            kind = server.behave(server.requests, key)
            server.kinds[kind] += 1
            server.keys.append(self.headers.get("Authorization"))
            server.bodies.append(body)
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        try:
            time.sleep(server.slow)
            self._behave(kind, key)
        finally:
            with server.lock:
                server.in_flight -= 1

    def _behave(self, kind, key):
        text = words_for(key)
        if kind == "ok":
            with self.server.lock:
                self.server.answered[key] += 1
            return self._send(completion(text if self.server.form is None else self.server.form))
        if kind == "quota" or kind.isdigit():
            message = f"no: {self.headers.get('Authorization')}"
            code = "insufficient_quota" if kind == "quota" else None
            retry = {"Retry-After": self.server.retry_after}
            status = 429 if kind == "quota" else int(kind)
            return self._send({"error": {"message": message, "code": code}}, status, retry)
        if kind == "drop":
            self.close_connection = True
            return None
        if kind == "hang":
            time.sleep(2)
            self.close_connection = True
            return None
        full = json.dumps(completion(text)).encode()
        if kind == "cut":  # promises more than it sends
            self.close_connection = True
            return self._raw(full[: len(full) // 2], length=len(full))
        content = {
            "nothing": b"",
            "html": b"<html>busy</html>",
            "badjson": full[: len(full) // 2],
            "list": b"[1, 2]",
            "nochoice": json.dumps({**completion(text), "choices": []}).encode(),
            "empty": json.dumps(completion("  \n")).encode(),
            "null": json.dumps(completion(None)).encode(),
            "length": json.dumps(completion("The field is ris", "length")).encode(),
            "long": json.dumps(completion(f"{text} And then it", "length")).encode(),
            "filter": json.dumps(completion("I cannot.", "content_filter")).encode(),
        }[kind]
        return self._raw(content, kind="text/html" if kind == "html" else "application/json")

    def _send(self, value, status=200, headers=None):
        self._raw(json.dumps(value).encode(), status=status, headers=headers)

    def _raw(self, content, *, status=200, kind="application/json", headers=None, length=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
