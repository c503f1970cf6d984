"""Narratives by a multimodal model behind an OpenAI-compatible server: OpenAI, vLLM, Ollama, ….

The key is read from the environment when the first request is sent, and is written nowhere.
"""

import copy
import json
import os
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import count, islice
from typing import Any, Literal
from urllib.parse import urlsplit

from s2kd.core.reading import Above, AtLeastZero, Size
from s2kd.core.types import Past, S2KDError
from s2kd.narration.claims import object_schema, parse, schema
from s2kd.narration.narrators import Answer, Narrator, narrators
from s2kd.narration.prompts import FORM, VERSION, prompt, shown_labels, tidied
from s2kd.narration.sheet import Sheets, png

KEY, URL = "OPENAI_API_KEY", "OPENAI_BASE_URL"
OFFICIAL = "https://api.openai.com/v1"
Reader = Callable[[Answer], Answer]
MOST_FAILURES = 20
"""Windows in a row without a usable answer after which the server counts as down."""


class UnusableAnswer(Exception):
    """No answer, or one that says nothing; the same request may work later."""


class BudgetSpent(Exception):
    """`max_requests` is used up."""


@narrators.register("openai")
class OpenAI(Narrator):
    """The answers of `model` at `url` (default: the environment's OPENAI_BASE_URL).

    A recipe may come from anybody, so `url` may name a server of this machine only; another one is
    named by OPENAI_BASE_URL. The key is read from OPENAI_API_KEY, and sent by https or to this
    machine only.

    Narratives are stored under model, `revision` (your name for what the server runs, such as a
    commit), sheet, prompt and decoding; not under the address, so that a run can continue at
    another server. With `claims` the server fills a form beside the text (it must support
    `response_format` with a JSON schema); the claims are stored with the narrative.

    At most `concurrent` requests are in flight, each read at most `timeout` seconds. Refusals
    that may pass (408, 409, 429, 5xx) and broken connections are retried up to `retries` times,
    after the pause that the server asks for (`Retry-After`) or one that doubles; so are answers
    that are empty, filtered or not JSON, at once. `max_requests` ends the work after so many
    requests (0: no limit), retries of refused ones not counted.
    """

    reads_future = False
    needs = "a server"
    varies = True

    def __init__(
        self,
        *,
        model: str,
        url: str = "",
        revision: str = "",
        size: int = 608,
        labels: bool = True,
        channels: Sequence[str] = (),
        detail: Literal["", "auto", "low", "high"] = "",
        max_tokens: Size = 300,
        temperature: float | None = 0.0,
        seed: int | None = 0,
        claims: bool = False,
        concurrent: Size = 16,
        timeout: Above = 120.0,
        retries: AtLeastZero = 8,
        max_requests: AtLeastZero = 0,
    ) -> None:
        self.model, self._url = model, checked_url(url)
        self.sheets = Sheets(size=size, labels=labels, channels=tuple(channels))
        self.max_requests, self.concurrent = max_requests, concurrent
        self._detail, self._max_tokens, self._claims = detail, max_tokens, claims
        self._temperature, self._seed = temperature, seed
        self._timeout, self._retries = timeout, retries
        name = f"{model}@{revision}" if revision else model
        sheet = f"{self.sheets.version}{f' detail={detail}' if detail else ''}"
        decoding = f"max_tokens={max_tokens} temperature={temperature} seed={seed}"
        form = " claims" if claims else ""
        self.version = f"openai-1 {name} {sheet} {VERSION} {decoding}{form}"

    @property
    def url(self) -> str:
        """The address of the server.

        Raises S2KDError where a recipe names a server elsewhere.
        """
        named = checked_url(os.environ.get(URL, ""))
        if self._url and self._url != named and not is_local(self._url):
            raise S2KDError(
                f"openai: url={self._url} is not on this machine, and a recipe may not send data "
                f"elsewhere by itself; if you trust it, set the environment variable {URL} to it"
            )
        return self._url or named or OFFICIAL

    def narrate(self, pasts: Sequence[Past]) -> list[str]:
        """One text per past, in order."""
        with closing(self.stream(enumerate(pasts))) as stream:
            texts = {answer.number: answer.text for answer in stream}
        return [texts[number] for number in range(len(pasts))]

    def retry(self, attempt: int) -> "OpenAI":
        """The same model with a higher temperature and another seed."""
        narrator = copy.copy(self)
        narrator._temperature, narrator._seed = 0.7, (self._seed or 0) + attempt
        return narrator

    def ask(self, question: str, form: dict[str, Any]) -> str:
        """The JSON that answers a question without a picture, in the form of a JSON schema."""
        with self._client() as client:
            body = self._body([{"type": "text", "text": question}], form)
            try:
                return self._answer(client, count(1), body, read=lambda answer: answer).text
            except UnusableAnswer as error:
                raise S2KDError(f"openai: {self.url} gave no usable answer ({error})") from None

    def stream(self, pasts: Iterable[tuple[int, Past]]) -> Iterator[Answer]:
        """Answers as they arrive.

        Raises:
            S2KDError: at once where the server refuses for good; at the end for windows without
                a usable answer, or where the budget is spent.
        """
        queue, sent, failures, streak, spent = iter(pasts), count(1), [], 0, False
        with self._client() as client, ThreadPoolExecutor(self.concurrent) as pool:
            pending: dict[Future, int] = {}
            while True:
                for number, past in islice(queue, self.concurrent - len(pending)):
                    body = self._question(past)  # drawn here: Matplotlib is not for threads
                    read = partial(read_form, past) if self._claims else read_text
                    pending[pool.submit(self._answer, client, sent, body, read)] = number
                if not pending:
                    break
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    number = pending.pop(future)
                    try:
                        answer = future.result()
                    except BudgetSpent:
                        queue, spent = iter(()), True
                    except UnusableAnswer as error:
                        failures.append(str(error))
                        streak += 1
                        if streak >= MOST_FAILURES:
                            raise self._unanswered(failures) from None
                    else:
                        streak = 0
                        yield replace(answer, number=number)
        if spent:
            raise S2KDError(
                f"openai: the budget of {self.max_requests} requests is spent; the narratives "
                "so far are stored, and the same command continues from them"
            )
        if failures:
            raise self._unanswered(failures)

    def _client(self) -> Any:
        try:
            import openai
        except ImportError:
            raise S2KDError(
                "narrator 'openai' needs the package openai; install it: pip install 's2kd[lmm]'"
            ) from None
        if self._key and urlsplit(self.url).scheme == "http" and not is_local(self.url):
            raise S2KDError(
                f"openai: the key in {KEY} would travel to {self.url} unencrypted; use https, or "
                f"unset {KEY} for a server that needs none"
            )
        if not self._key and self.url == OFFICIAL:
            raise S2KDError(
                f"openai: {OFFICIAL} needs a key in the environment variable {KEY};"
                " for a server of your own give its address, as in "
                "--set narrator.params.url=http://localhost:8000/v1"
            )
        return openai.OpenAI(
            api_key=self._key or "none",  # a local server needs none, the client insists
            base_url=self.url,
            timeout=self._timeout,
            max_retries=self._retries,
        )

    @property
    def _key(self) -> str:
        return os.environ.get(KEY, "")

    def _question(self, past: Past) -> dict[str, Any]:
        """The body of the request for one window."""
        sheet = b64encode(png(self.sheets(past))).decode("ascii")
        image = {"url": f"data:image/png;base64,{sheet}"}
        if self._detail:
            image["detail"] = self._detail
        text, form = prompt(past, channels=self.sheets.channels), None
        if self._claims:
            fields = {"text": {"type": "string"}, "claims": schema(past.domain, labels_of(past))}
            text, form = text + FORM, object_schema(fields)
        return self._body(
            [{"type": "image_url", "image_url": image}, {"type": "text", "text": text}], form
        )

    def _body(self, content: list[dict[str, Any]], form: dict[str, Any] | None) -> dict[str, Any]:
        # OpenAI's newer models refuse the old name, other servers do not all know the new one
        limit = "max_completion_tokens" if self.url == OFFICIAL else "max_tokens"
        json_schema = {"name": "narrative", "strict": True, "schema": form}
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            limit: self._max_tokens if form is None else 4 * self._max_tokens,
            "temperature": self._temperature,
            "seed": self._seed,
            "response_format": form and {"type": "json_schema", "json_schema": json_schema},
        }
        return {name: value for name, value in body.items() if value is not None}

    def _answer(
        self, client: Any, sent: Iterator[int], body: dict[str, Any], read: Reader
    ) -> Answer:
        """The answer to one request, in a thread of the pool."""
        import openai

        reason = ""
        for _ in range(self._retries + 1):
            if 0 < self.max_requests < next(sent):
                raise BudgetSpent
            try:
                return read(usable(client.chat.completions.create(**body)))
            except UnusableAnswer as error:
                reason = str(error)
            except openai.APIConnectionError as error:  # the client has retried, here and below
                cause = str(error.__cause__ or error) or type(error.__cause__).__name__
                raise UnusableAnswer(f"no connection, or one that broke off ({cause})") from None
            except openai.APIStatusError as error:
                raise self._refusal(error) from None
            except (openai.APIError, ValueError) as error:
                reason = f"an answer that is not JSON ({error})"
        raise UnusableAnswer(reason)

    def _refusal(self, error: Any) -> Exception:
        """What may pass is an unusable answer; everything else is for the user to solve."""
        body = error.body if isinstance(error.body, dict) else {}
        text = str(body.get("message") or error.response.text or error.response.reason_phrase)
        text = text.replace(self._key or "none", "…")  # some repeat the key
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]
        reason = f"status {error.status_code}: {text}"
        passing = error.status_code in (408, 409, 429) or error.status_code >= 500
        if passing and error.code != "insufficient_quota":
            return UnusableAnswer(reason)
        return S2KDError(f"openai: {self.url} refuses the request ({reason})")

    def _unanswered(self, failures: list[str]) -> S2KDError:
        return S2KDError(
            f"openai: {self.url} gave no usable answer for {len(failures)} windows (the last: "
            f"{failures[-1]}); the others are stored, and the same command asks for these again"
        )


def usable(completion: Any) -> Answer:
    """The text of a complete, well-formed answer that says something."""
    try:
        choice = completion.choices[0]
        text, reason, model = choice.message.content, choice.finish_reason, completion.model
    except (AttributeError, IndexError, TypeError):
        raise UnusableAnswer("an answer that is no chat completion") from None
    if reason == "content_filter":
        raise UnusableAnswer("an answer withheld by the server's filter")
    if not isinstance(text, str) or not text.strip():
        hint = "; max_tokens may be too small" if reason == "length" else ""
        raise UnusableAnswer(f"an empty answer{hint}")
    if reason == "length" and not tidied(text).rstrip("\"')]").endswith((".", "!", "?")):
        raise UnusableAnswer("an answer cut in its first sentence; max_tokens may be too small")
    return Answer(number=0, text=text, model=model if isinstance(model, str) else "")


def read_text(answer: Answer) -> Answer:
    """A free text as a narrative."""
    return replace(answer, text=tidied(answer.text))


def read_form(past: Past, answer: Answer) -> Answer:
    """The text and claims of a form; claims outside the schema are dropped with all others."""
    try:
        form = json.loads(answer.text)
        text, items = str(form["text"]), form["claims"]
    except (ValueError, KeyError, TypeError):
        raise UnusableAnswer("an answer that is not the form") from None
    try:
        claims = parse(items, past.domain, past.grid, labels_of(past))
    except S2KDError:
        claims = None  # counts as unchecked
    return replace(answer, text=tidied(text), claims=claims)


def labels_of(past: Past) -> tuple[str, ...]:
    """The channels of a form by the names that the model sees."""
    return shown_labels(past.grid, past.domain)


def is_local(url: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or bool(re.fullmatch(r"127(\.\d{1,3}){3}", host))


def checked_url(url: str) -> str:
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
