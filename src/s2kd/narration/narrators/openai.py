"""Any server that speaks OpenAI's protocol: OpenAI itself, vLLM, SGLang, Ollama and others.

The key is read from the environment when the first request is made, and is written nowhere.
"""

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from urllib.parse import urlsplit

from s2kd.core.types import Past, S2KDError
from s2kd.narration.narrators import Answer, narrators
from s2kd.narration.narrators.layout import pillow
from s2kd.narration.narrators.prompts import VERSION, prompt
from s2kd.narration.narrators.render import Sheets, png
from s2kd.narration.narrators.requests import Asked, Asking, requests

KEY, URL = "OPENAI_API_KEY", "OPENAI_BASE_URL"
OFFICIAL = "https://api.openai.com/v1"


@narrators.register("openai")
class OpenAI:
    """The answers of `model` at `url` (or at the address in the environment's OPENAI_BASE_URL).

    Words are kept under model, `revision` (your name for what the server runs, such as a commit),
    sheet, prompt and decoding; not under the address, so that a run can go on at another server.
    What the server calls its model is kept with each narrative.

    At most `concurrent` requests are under way. One that gets no answer in `timeout` seconds, a
    429, a 5xx, a broken or an unusable answer is asked again up to `retries` times, after
    `backoff` seconds, twice that and so on, or when the server says (`Retry-After`).
    `max_requests` ends the work after so many requests, retries among them (0: no limit).
    """

    reads_future = False
    needs = "a server"

    def __init__(
        self,
        *,
        model: str,
        url: str = "",
        revision: str = "",
        size: int = 608,
        labels: bool = True,
        channels: Sequence[str] = (),
        detail: str = "",
        max_tokens: int = 300,
        temperature: float | None = 0.0,
        seed: int | None = 0,
        concurrent: int = 16,
        timeout: float = 120.0,
        retries: int = 8,
        backoff: float = 1.0,
        max_requests: int = 0,
        key_variable: str = KEY,
    ) -> None:
        least = {"max_tokens": max_tokens, "concurrent": concurrent}
        for name, value in least.items():
            if value < 1:
                raise S2KDError(f"openai: {name} must be at least 1, got {value}")
        if min(retries, backoff, max_requests) < 0 or timeout <= 0:
            raise S2KDError(
                "openai: retries, backoff and max_requests must not be negative and timeout must "
                f"be positive, got {retries}, {backoff}, {max_requests} and {timeout}"
            )
        if detail not in ("", "auto", "low", "high"):
            raise S2KDError(f"openai: detail={detail!r} must be low, high, auto or left out")
        if not key_variable.isidentifier():
            raise S2KDError(
                f"openai: key_variable must be the name of an environment variable, such as {KEY}; "
                "a key itself has no place in a recipe"
            )
        self.model, self._url = model, _checked(url)
        self.sheets = Sheets(size=size, labels=labels, channels=tuple(channels))
        self.max_requests, self.concurrent = max_requests, concurrent
        self._detail, self._max_tokens = detail, max_tokens
        self._temperature, self._seed = temperature, seed
        self._timeout, self._retries, self._backoff = timeout, retries, backoff
        self._key_variable = key_variable
        name = f"{model}@{revision}" if revision else model
        how = f"max_tokens={max_tokens} temperature={temperature} seed={seed}"
        seen = f"{self.sheets.version}{f' detail={detail}' if detail else ''}"
        self.version = f"openai-1 {name} {seen} {VERSION} {how}"

    @property
    def url(self) -> str:
        """Where requests go."""
        return self._url or _checked(os.environ.get(URL, "")) or OFFICIAL

    def narrate(self, pasts: Sequence[Past]) -> list[str]:
        """One text a past, in order."""
        with closing(self.stream(enumerate(pasts))) as stream:
            texts = {one.number: one.text for one in stream}
        return [texts[number] for number in range(len(pasts))]

    def stream(self, pasts: Iterable[tuple[int, Past]]) -> Iterator[Answer]:
        """Narratives as they come. What is unusable to the end is told of when the rest is done."""
        pillow()
        asking = Asking(
            url=self.url,
            key=self._key(),
            concurrent=self.concurrent,
            timeout=self._timeout,
            retries=self._retries,
            backoff=self._backoff,
            max_requests=self.max_requests,
        )
        questions = (Asked(number=n, body=self._body(past)) for n, past in pasts)
        return requests(questions, asking)

    def retry(self, attempt: int) -> "OpenAI":
        """The same, warmer and with another seed: for narratives that were not faithful."""
        other = copy.copy(self)
        other._temperature = 0.7
        other._seed = (self._seed or 0) + attempt
        return other

    def _key(self) -> str:
        key = os.environ.get(self._key_variable, "")
        if not key and self.url == OFFICIAL:
            raise S2KDError(
                f"openai: {OFFICIAL} needs a key in the environment variable {self._key_variable};"
                " for a server of your own give its address, as in "
                "--set narrator.params.url=http://localhost:8000/v1"
            )
        return key or "none"  # servers of one's own want none, the client wants some

    def _body(self, past: Past) -> dict:
        """One request, as OpenAI's chat completions want it."""
        from base64 import b64encode

        sheet = b64encode(png(self.sheets(past))).decode("ascii")
        image = {"url": f"data:image/png;base64,{sheet}"}
        if self._detail:
            image["detail"] = self._detail
        content = [
            {"type": "image_url", "image_url": image},
            {"type": "text", "text": prompt(past, channels=self.sheets.channels)},
        ]
        # OpenAI's newer models refuse the old name, other servers do not all know the new one
        most = "max_completion_tokens" if self.url == OFFICIAL else "max_tokens"
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            most: self._max_tokens,
            "temperature": self._temperature,
            "seed": self._seed,
        }
        return {name: value for name, value in body.items() if value is not None}


def _checked(url: str) -> str:
    """An address without a slash at its end; one that holds a password is refused."""
    if not url:
        return ""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise S2KDError(
            f"openai: url={url!r} must begin with http:// or https://, as http://localhost:8000/v1"
        )
    if parts.username or parts.password or parts.query:
        raise S2KDError(
            f"openai: the url of {parts.hostname} holds a user, a password or a query, which would "
            f"be stored with the recipe; put the key into the environment variable {KEY}"
        )
    return url.rstrip("/")
