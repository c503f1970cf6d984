"""Many chat completions under way at once, whatever the server does meanwhile.

A thread of its own runs the client's event loop; the caller's thread draws the pictures and takes
the answers, so that this works inside notebooks too.
"""

import asyncio
import random
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any

from s2kd.core.types import S2KDError
from s2kd.narration.narrators import Answer
from s2kd.narration.narrators.prompts import tidied

LONGEST_WAIT = 600.0
"""Seconds; a server that asks for more (a quota of the day) ends the work."""
MOST_FAILURES = 20
"""So many windows given up in a row, and the server is taken to be down."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One window's request: the body of a chat completion."""

    number: int
    body: dict


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How to ask; the meaning of each field is told by the `openai` narrator."""

    url: str
    key: str
    concurrent: int
    timeout: float
    retries: int
    backoff: float
    max_requests: int

    def __repr__(self) -> str:  # a key must not get into a log
        return f"Asking({self.url})"


class Spent(Exception):
    """The budget of requests is used up."""


class Unusable(Exception):
    """An answer, or none, that asking again may put right; `after` is what the server wants."""

    def __init__(self, why: str, *, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


def requests(questions: Iterable[Asked], asking: Asking) -> Iterator[Answer]:
    """Answers as they come, at most `concurrent` under way.

    A window whose answers stay unusable is left out, and told of in an S2KDError when the others
    are done; so is a budget that is spent. What the server refuses for good ends the work at once.
    """
    waiting, failures, in_a_row = iter(questions), [], 0
    with _Client(asking) as client:
        under_way: dict[Future, int] = {}
        more = True
        while True:
            room = asking.concurrent - len(under_way)
            for asked in islice(waiting, room if more else 0):
                under_way[client.ask(asked)] = asked.number
                room -= 1
            more = more and room == 0 and not client.spent
            if not under_way:
                break
            done = wait(under_way, return_when=FIRST_COMPLETED).done
            for future in sorted(done, key=lambda one: one.exception() is not None):
                del under_way[future]
                try:
                    told = future.result()
                except Spent:
                    more = False
                except Unusable as error:
                    failures.append(str(error))
                    in_a_row += 1
                    if in_a_row >= MOST_FAILURES:
                        raise _given_up(asking, failures) from None
                else:
                    in_a_row = 0
                    yield told
        if client.spent:
            raise S2KDError(
                f"openai: the budget of {asking.max_requests} requests is spent; the narratives "
                "so far are kept, and the same command goes on from them"
            )
        if failures:
            raise _given_up(asking, failures)


def _given_up(asking: Asking, failures: list[str]) -> S2KDError:
    return S2KDError(
        f"openai: {asking.url} gave no usable answer for {len(failures)} windows, each asked "
        f"{asking.retries + 1} times (the last: {failures[-1]}); the others are kept, and the "
        "same command asks for these again"
    )


class _Client:
    """The official client in a thread with an event loop of its own."""

    def __init__(self, asking: Asking) -> None:
        self._asking, self.sent, self.spent = asking, 0, False
        self._not_before = 0.0

    def __enter__(self) -> "_Client":
        try:
            import openai
        except ImportError:
            raise S2KDError(
                "narrator 'openai' needs the package openai; install it: pip install 's2kd[lmm]'"
            ) from None
        self._openai = openai
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client = openai.AsyncOpenAI(
            api_key=self._asking.key,
            base_url=self._asking.url,
            timeout=self._asking.timeout,
            max_retries=0,  # our own: one pause for all, and every request counted
        )
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()

    def ask(self, asked: Asked) -> "Future[Answer]":
        """Under way from now on."""
        return asyncio.run_coroutine_threadsafe(self._answer(asked), self._loop)

    async def _answer(self, asked: Asked) -> Answer:
        """Asked until the answer can be used, at most `retries` times more."""
        for attempt in range(self._asking.retries + 1):
            await self._turn()
            try:
                return await self._once(asked)
            except Unusable as error:
                if attempt == self._asking.retries:
                    raise
                # half of it at random, so that those sent away together do not return together
                pause = self._asking.backoff * 2 ** min(attempt, 6) * random.uniform(0.5, 1.0)
                if error.after is None:
                    await asyncio.sleep(pause)
                else:
                    self._not_before = max(self._not_before, time.monotonic() + error.after)
                    await asyncio.sleep(error.after + random.uniform(0, 0.1) * error.after)
        raise AssertionError("the last attempt returns or raises")

    async def _turn(self) -> None:
        """When the server wants a pause, all pause; then one more request is counted."""
        while (rest := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(rest)
        most = self._asking.max_requests
        if most and self.sent >= most:
            self.spent = True
            raise Spent
        self.sent += 1

    async def _once(self, asked: Asked) -> Answer:
        api = self._openai
        try:
            # the client's own limit is on each read, which a server that dribbles never reaches
            async with asyncio.timeout(self._asking.timeout):
                answer = await self._client.chat.completions.create(**asked.body)
        except (api.APITimeoutError, TimeoutError):
            raise Unusable(f"no answer in {self._asking.timeout:g} s") from None
        except api.APIConnectionError as error:
            why = str(error.__cause__ or error) or type(error.__cause__).__name__
            raise Unusable(f"no connection, or one that broke off ({why})") from None
        except api.APIStatusError as error:
            raise self._refused(error) from None
        except (api.APIError, ValueError) as error:
            raise Unusable(f"an answer that is not JSON ({error})") from None
        return _told(asked.number, answer)

    def _refused(self, error: Any) -> Exception:
        """What another attempt may put right; all else is the user's to put right."""
        why = f"status {error.status_code}: {self._message(error)}"
        after = retry_after(error.response.headers)
        if after is not None and after > LONGEST_WAIT:
            return S2KDError(
                f"openai: {self._asking.url} wants {after:.0f} s of patience ({why}); the same "
                "command goes on then"
            )
        passing = error.status_code in (408, 409, 425, 429) or error.status_code >= 500
        if passing and getattr(error, "code", None) != "insufficient_quota":
            return Unusable(why, after=after)
        return S2KDError(f"openai: {self._asking.url} refuses the request ({why})")

    def _message(self, error: Any) -> str:
        """What the server says, on one line, without the key that some servers repeat."""
        body = error.body if isinstance(error.body, dict) else {}
        text = str(body.get("message") or error.response.text or error.response.reason_phrase)
        text = " ".join(text.replace(self._asking.key, "…").split())
        return text[:200] + ("…" if len(text) > 200 else "")


def retry_after(headers: Any) -> float | None:
    """Seconds that the server asks for, as a number or as a date; None where it does not."""
    said = headers.get("retry-after", "")
    try:
        return max(0.0, float(headers.get("retry-after-ms", "")) / 1000)
    except ValueError:
        pass
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _told(number: int, answer: Any) -> Answer:
    """The text of a whole, well-formed answer that says something."""
    try:
        choice = answer.choices[0]
        text, reason, model = choice.message.content, choice.finish_reason, answer.model
    except (AttributeError, IndexError, TypeError):
        raise Unusable("an answer that is no chat completion") from None
    if reason == "content_filter":
        raise Unusable("an answer withheld by the server's filter")
    if not isinstance(text, str) or not text.strip():
        more = "; max_tokens may be too few" if reason == "length" else ""
        raise Unusable(f"an empty answer{more}")
    said = tidied(text)
    if reason == "length" and not said.rstrip("\"')]").endswith((".", "!", "?")):
        raise Unusable("an answer cut short within its first sentence; max_tokens may be too few")
    return Answer(number=number, text=said, model=model if isinstance(model, str) else "")
