"""baton.js by itself, in Chromium: order, gaps, reconnecting, close codes, tokens. The other end is scripted."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
from playwright.async_api import Page

from tests.browser.scripted import Connection, Log, ScriptedGateway, source

pytestmark = pytest.mark.anyio

TIMING = """{ baseDelayMs: 20, maxDelayMs: 100, pauseMs: 300, stableMs: 5000, connectTimeoutMs: 60000,
  heartbeatMs: 20000, pongTimeoutMs: 60000, quietMs: 60000, giveUpMs: 60000 }"""
"""Short pauses, so that tests are quick; patience with a gateway that runs in the test, and so is slow at times."""


class Client:
    """A `BatonClient` in a page. `answer` is what its last question gave."""

    def __init__(self, page: Page, gateway: ScriptedGateway) -> None:
        self.page = page
        self.gateway = gateway

    async def start(self, options: str = "{}", timing: str = "{}") -> None:
        await self.page.goto(f"{self.gateway.url}/blank")
        await self.page.evaluate(
            f"""async () => {{
              window.module = await import("/static/baton.js");
              window.states = [];
              window.client = new module.BatonClient({{
                url: `ws://${{location.host}}/ws`, timing: {{ ...{TIMING}, ...{timing} }}, ...{options} }});
              client.addEventListener("state", (event) => states.push(event.detail));
            }}"""
        )

    async def ask(self, query: str = "How much?", options: str = "{}") -> tuple[Connection, Log]:
        await self.page.evaluate(
            f"""query => {{
              window.waits = [];
              window.answer = client.ask(query, {options});
              answer.addEventListener("wait", (event) => waits.push(event.detail));
            }}""",
            query,
        )
        connection = await self.gateway.connection()
        message = await connection.receive("query")
        return connection, Log(message["request_id"])

    async def until(self, condition: str) -> None:
        await self.page.wait_for_function(condition)

    async def state(self) -> dict[str, Any]:
        return await self.page.evaluate("({ ...answer.state, seqs: answer.frames.map((frame) => frame.seq) })")

    async def ended(self) -> dict[str, Any]:
        await self.until("answer.finished")
        return await self.state()

    async def states(self) -> list[dict[str, Any]]:
        return await self.page.evaluate("states")


@pytest.fixture
def client(page: Page, gateway: ScriptedGateway) -> Client:
    return Client(page, gateway)


async def reduced(client: Client, frames: list[dict[str, Any]]) -> dict[str, Any]:
    """What `AnswerState` makes of frames, without a connection."""
    await client.start()
    return await client.page.evaluate(
        "frames => ({ ...frames.reduce((state, frame) => state.next(frame), new module.AnswerState()) })", frames
    )


# --- order ------------------------------------------------------------------------------------------------------------


async def test_frames_come_in_order_to_events_and_iterators_alike(client: Client) -> None:
    await client.start()
    connection, log = await client.ask()
    await client.page.evaluate(
        """() => {
          window.events = []; window.iterated = [];
          answer.addEventListener("frame", (event) => events.push(event.detail.seq));
          (async () => { for await (const frame of answer) iterated.push(frame.seq) })();
        }"""
    )
    log.accepted()
    log.chunks("one two three")
    log.done()
    await connection.send(*log[:])
    assert (await client.ended())["text"] == "one two three"
    expected = list(range(len(log.frames)))
    assert await client.page.evaluate("events") == expected
    assert await client.page.evaluate("iterated") == expected
    late = "(async () => { const all = []; for await (const frame of answer) all.push(frame.seq); return all })()"
    assert await client.page.evaluate(late) == expected


async def test_two_questions_on_one_connection_do_not_mix(client: Client) -> None:
    await client.start()
    connection, first = await client.ask("first")
    await client.page.evaluate("window.other = client.ask('second')")
    second = Log((await connection.receive("query"))["request_id"])
    for log, word in ((first, "one"), (second, "two")):
        log.accepted()
        log.chunk(word)
        log.done()
    for pair in zip(first.frames, second.frames, strict=True):
        await connection.send(*pair)
    await client.until("answer.finished && other.finished")
    assert await client.page.evaluate("[answer.state.text, other.state.text]") == ["one", "two"]


async def test_a_repeated_frame_is_dropped(client: Client) -> None:
    await client.start()
    connection, log = await client.ask()
    log.accepted()
    log.chunks("abcdef", 2)
    log.done()
    await connection.send(log[0], log[1], log[1], log[0], log[2], log[2], log[3], log[4])
    state = await client.ended()
    assert (state["text"], state["seqs"]) == ("abcdef", [0, 1, 2, 3, 4])


async def test_a_joined_chunk_fills_its_whole_range(client: Client) -> None:
    await client.start()
    connection, log = await client.ask()
    log.accepted()
    log.chunks("abcdef", 2)
    log.done()
    joined = {**log[3], "from_seq": 1, "content": "abcdef"}
    await connection.send(log[0], joined, log[4])
    state = await client.ended()
    assert (state["text"], state["seqs"]) == ("abcdef", [0, 3, 4])


async def test_of_a_joined_chunk_only_what_is_new_is_used(client: Client) -> None:
    await client.start()
    connection, log = await client.ask()
    log.accepted()
    log.chunks("abcdef", 2)
    log.done()
    joined = {**log[3], "from_seq": 1, "content": "abcdef"}
    await connection.send(log[0], log[1], log[2], joined, log[4])
    assert (await client.ended())["text"] == "abcdef"


async def test_a_gap_is_filled_by_a_resume(client: Client) -> None:
    await client.start()
    connection, log = await client.ask()
    log.accepted()
    log.chunks("abcdef", 1)
    log.done()
    await connection.send(log[0], log[1], log[4], log[5])
    assert await connection.receive() == {"type": "resume", "request_id": log.request_id, "after_seq": 1}
    await connection.send(resumed(log, 2), *log[2:])
    state = await client.ended()
    assert (state["text"], state["seqs"]) == ("abcdef", list(range(8)))
    assert connection.messages.empty()


async def test_a_gap_that_cannot_be_filled_is_reported_not_hidden(client: Client) -> None:
    await client.start()
    connection, log = await client.ask()
    log.accepted()
    log.chunks("abcdef", 1)
    await connection.send(log[0], log[4])
    for _ in range(5):
        await connection.receive("resume")
        await connection.send(resumed(log, 4))
    state = await client.ended()
    assert (state["error"]["code"], state["text"]) == ("log_lost", "")


def resumed(log: Log, next_seq: int, **fields: Any) -> dict[str, Any]:
    return {"type": "resumed", "request_id": log.request_id, "recovered": True, "next_seq": next_seq, **fields}


# --- reconnecting -----------------------------------------------------------------------------------------------------


async def test_after_a_drop_the_answer_goes_on_where_it_was(client: Client) -> None:
    await client.start()
    connection, log = await client.ask()
    log.accepted()
    log.chunks("abcdef", 1)
    log.done()
    await connection.send(*log[:3])
    await client.until("answer.frames.length === 3")
    await connection.close(1011)
    second = await client.gateway.connection()
    assert await second.receive() == {"type": "resume", "request_id": log.request_id, "after_seq": 2}
    await second.send(resumed(log, 3), log[2], *log[3:])
    state = await client.ended()
    assert (state["text"], state["seqs"]) == ("abcdef", list(range(8)))


async def test_a_question_that_got_no_answer_yet_is_sent_again_under_the_same_id(client: Client) -> None:
    await client.start()
    connection, log = await client.ask()
    await connection.close(1012)
    second = await client.gateway.connection()
    again = await second.receive("query")
    assert again["request_id"] == log.request_id
    await second.send(log.accepted(), log.chunk("yes"), log.done())
    assert (await client.ended())["text"] == "yes"


async def test_the_stored_answer_is_shown_as_such_when_the_log_is_gone(client: Client) -> None:
    await client.start()
    connection, log = await client.ask()
    await connection.send(log.accepted(), log.chunk("half"))
    await client.until("answer.frames.length === 2")
    await connection.close(1012)
    second = await client.gateway.connection()
    await second.receive("resume")
    stored = {"answer": "whole [1]", "sources": [{"n": 1, "title": "t", "snippet": "s"}], "finish_reason": "stop"}
    await second.send(resumed(log, 0, **{"recovered": False, **stored}))
    state = await client.ended()
    assert (state["text"], state["recovered"], state["cited"], state["phase"]) == ("whole [1]", False, [1], "done")


@pytest.mark.parametrize("resumed_first", [True, False])
async def test_an_answer_that_is_gone_ends_with_gone(client: Client, resumed_first: bool) -> None:
    await client.start()
    connection, log = await client.ask()
    await connection.send(log.accepted(), log.chunk("half"))
    await client.until("answer.frames.length === 2")
    await connection.close(1012)
    second = await client.gateway.connection()
    await second.receive("resume")
    gone = {"type": "error", "request_id": log.request_id, "code": "gone", "message": "expired", "retryable": False}
    if resumed_first:
        await second.send(resumed(log, 0, recovered=False))
    await second.send(gone)
    state = await client.ended()
    assert (state["error"]["code"], state["text"], state["phase"]) == ("gone", "half", "failed")


async def test_a_request_can_be_attached_by_its_id_alone(client: Client) -> None:
    await client.start()
    await client.page.evaluate("window.answer = client.attach('earlier')")
    connection = await client.gateway.connection()
    assert await connection.receive() == {"type": "resume", "request_id": "earlier", "after_seq": -1}
    log = Log("earlier")
    log.accepted()
    log.chunk("yes")
    log.done()
    await connection.send(resumed(log, 0), *log[:])
    assert (await client.ended())["text"] == "yes"


async def test_a_dead_connection_is_noticed_and_replaced(client: Client) -> None:
    await client.start(timing="{ heartbeatMs: 100 }")
    connection, log = await client.ask()
    connection.answers_pings = False
    await connection.send(log.accepted())
    await client.until("answer.frames.length === 1")
    # Impatient with this connection alone: the next one is the other end's to keep alive, which may be slow.
    await client.page.evaluate(
        """() => {
          const { pongTimeoutMs } = client.timing;
          client.timing.pongTimeoutMs = 300;
          client.addEventListener("state", () => { client.timing.pongTimeoutMs = pongTimeoutMs }, { once: true });
        }"""
    )
    second = await client.gateway.connection()
    await second.receive("resume")
    await second.send(resumed(log, 1), log.chunk("yes"), log.done())
    assert (await client.ended())["text"] == "yes"


async def test_a_living_connection_is_kept_through_silence(client: Client) -> None:
    await client.start(timing="{ heartbeatMs: 100, pongTimeoutMs: 20000 }")
    connection, _ = await client.ask()
    for _ in range(3):
        await asyncio.wait_for(connection.ping.wait(), 10)
        connection.ping.clear()
    assert not client.gateway.has_new_connection()


async def test_a_server_that_never_greets_is_left(client: Client) -> None:
    client.gateway.greets = False
    await client.start(timing="{ connectTimeoutMs: 200 }")
    await client.page.evaluate("client.connect()")
    await client.gateway.connection()
    await client.gateway.connection()


async def test_delays_grow_at_random_up_to_their_bound(client: Client) -> None:
    await client.start(options="{ url: 'ws://127.0.0.1:9/', random: () => 1 }")
    await client.page.evaluate("client.connect()")
    await client.until("states.filter((detail) => detail.retryInMs).length >= 5")
    delays = [detail["retryInMs"] for detail in await client.states() if "retryInMs" in detail]
    assert delays[:5] == [20, 40, 80, 100, 100]


async def test_after_long_enough_it_gives_up_and_says_so(client: Client) -> None:
    await client.start(options="{ url: 'ws://127.0.0.1:9/' }", timing="{ giveUpMs: 300 }")
    await client.page.evaluate("window.answer = client.ask('Anyone?')")
    state = await client.ended()
    assert (state["error"]["code"], state["error"]["retryable"]) == ("disconnected", True)
    assert (await client.states())[-1]["state"] == "offline"


# --- close codes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "error"), [(1009, "too_large"), (4003, "forbidden")])
async def test_close_codes_that_forbid_it_are_not_answered_by_coming_back(
    client: Client, code: int, error: str
) -> None:
    await client.start()
    connection, _ = await client.ask()
    await connection.close(code)
    state = await client.ended()
    assert state["error"]["code"] == error
    # Whoever waits for another attempt says so at once, by the state `reconnecting`.
    assert (await client.states())[-1]["state"] == "refused"


async def test_a_leaving_replica_is_replaced_at_once(client: Client) -> None:
    await client.start(timing="{ baseDelayMs: 60000, maxDelayMs: 60000 }")
    connection, log = await client.ask()
    await connection.send(log.accepted())
    await client.until("answer.frames.length === 1")
    await connection.close(1012)
    await (await client.gateway.connection()).receive("resume")


async def test_an_idle_close_is_answered_only_when_there_is_something_to_ask(client: Client) -> None:
    await client.start()
    connection, log = await client.ask()
    await connection.send(log.accepted(), log.done())
    await client.ended()
    await connection.close(4008)
    await client.until("client.state === 'idle'")
    assert not client.gateway.has_new_connection()
    second, _ = await client.ask("again")
    assert second is not connection


async def test_too_many_connections_means_a_pause(client: Client) -> None:
    await client.start()
    connection, _ = await client.ask()
    await connection.close(4029)
    await client.until("states.some((detail) => detail.code === 4029)")
    assert next(detail for detail in await client.states() if detail.get("code") == 4029)["retryInMs"] >= 300
    await (await client.gateway.connection()).receive("query")


async def test_a_client_that_was_too_slow_comes_back_and_resumes(client: Client) -> None:
    await client.start()
    connection, log = await client.ask()
    await connection.send(log.accepted(), log.chunk("one "))
    await client.until("answer.frames.length === 2")
    await connection.close(4009)
    second = await client.gateway.connection()
    assert (await second.receive("resume"))["after_seq"] == 1
    await second.send(resumed(log, 2), log.chunk("two"), log.done())
    assert (await client.ended())["text"] == "one two"


async def test_a_server_that_only_greets_and_breaks_ends_its_patience(client: Client) -> None:
    await client.start(timing="{ giveUpMs: 400 }")
    connection, _ = await client.ask()

    async def breaks(connection: Connection) -> None:
        while True:
            await connection.close(1011)
            connection = await client.gateway.connection()

    breaking = asyncio.create_task(breaks(connection))
    assert (await client.ended())["error"]["code"] == "disconnected"
    breaking.cancel()


# --- a server that is too busy for a question -------------------------------------------------------------------------


def refusal(log: Log, code: str = "overloaded", **fields: Any) -> dict[str, Any]:
    message = {"type": "error", "code": code, "message": "Full.", "retryable": True, "request_id": log.request_id}
    return {**message, **fields}


@pytest.mark.parametrize("code", ["overloaded", "rate_limited", "no_worker"])
async def test_a_question_that_was_refused_for_now_is_asked_again_when_the_server_said_to(
    client: Client, code: str
) -> None:
    await client.start(options="{ random: () => 0 }")
    connection, log = await client.ask()
    await client.page.evaluate("window.refusedAt = Date.now()")
    await connection.send(refusal(log, code, retry_after_ms=400))
    await client.until("waits.length > 0")
    waiting = await client.page.evaluate("({ ...waits[0], in: waits[0].until - refusedAt })")
    assert (waiting["code"], waiting["message"]) == (code, "Full.")
    assert waiting["in"] >= 400
    assert (await connection.receive("query"))["request_id"] == log.request_id
    assert await client.page.evaluate("Date.now() >= refusedAt + 400 && answer.waiting === null")
    await connection.send(log.accepted(), log.chunk("There."), log.done())
    assert (await client.ended())["text"] == "There."


async def test_a_refusal_that_stays_is_told_after_a_bounded_number_of_questions(client: Client) -> None:
    await client.start()
    connection, log = await client.ask()
    for _ in range(3):
        await connection.send(refusal(log, retry_after_ms=1))
        await connection.receive("query")
    await connection.send(refusal(log, retry_after_ms=1500))
    error = (await client.ended())["error"]
    assert (error["code"], error["retryAfterMs"]) == ("overloaded", 1500)
    assert connection.messages.empty()


async def test_a_refusal_that_waits_for_somebody_is_told_at_once(client: Client) -> None:
    await client.start()
    connection, log = await client.ask()
    await connection.send(refusal(log, "conversation_busy", retry_after_ms=1))
    assert (await client.ended())["error"]["code"] == "conversation_busy"


async def test_a_question_that_waits_to_be_asked_again_can_be_cancelled(client: Client) -> None:
    await client.start()
    connection, log = await client.ask()
    await connection.send(refusal(log, retry_after_ms=20_000))
    await client.until("answer.waiting !== null")
    await client.page.evaluate("answer.cancel()")
    await connection.receive("cancel")
    await connection.send(refusal(log, "not_found", retryable=False))
    assert (await client.ended())["finishReason"] == "cancelled"


async def test_a_new_connection_does_not_wait_and_the_question_is_asked_once(client: Client) -> None:
    await client.start(options="{ random: () => 0 }")
    connection, log = await client.ask()
    await connection.send(refusal(log, retry_after_ms=300))
    await client.until("waits.length > 0")
    await connection.close(1012)
    second = await client.gateway.connection()
    await second.receive("query")
    await second.send(log.accepted())
    await client.until("answer.frames.length === 1")
    await client.until("Date.now() > waits[0].until + 50")
    await second.send(log.chunk("Once."), log.done())
    assert (await client.ended())["text"] == "Once."
    assert second.messages.empty()


# --- tokens -----------------------------------------------------------------------------------------------------------


async def test_the_token_goes_first(client: Client) -> None:
    client.gateway.auth = "required"
    await client.start(options="{ token: 'secret' }")
    await client.page.evaluate("window.answer = client.ask('Who am I?')")
    connection = await client.gateway.connection()
    assert await connection.receive() == {"type": "auth", "token": "secret"}
    await connection.receive("query")


async def test_no_token_is_sent_to_a_server_that_wants_none(client: Client) -> None:
    await client.start(options="{ token: 'secret' }")
    connection, _ = await client.ask()
    assert connection.messages.empty()


async def test_a_refused_token_waits_for_a_new_one_and_then_goes_on(client: Client) -> None:
    client.gateway.auth = "required"
    await client.start(options="{ token: 'old' }")
    await client.page.evaluate("window.answer = client.ask('Who am I?')")
    connection = await client.gateway.connection()
    await connection.receive("auth")
    query = await connection.receive("query")
    await connection.close(4001)
    await client.until("client.state === 'auth'")
    assert not client.gateway.has_new_connection()
    await client.page.evaluate("client.setToken('new')")
    second = await client.gateway.connection()
    assert await second.receive() == {"type": "auth", "token": "new"}
    log = Log((await second.receive("query"))["request_id"])
    assert log.request_id == query["request_id"]
    await second.send(log.accepted(), log.chunk("you"), log.done())
    assert (await client.ended())["text"] == "you"


async def test_an_expired_token_is_renewed_by_whoever_can(client: Client) -> None:
    client.gateway.auth = "required"
    await client.start(options="{ getToken: async () => `token-${(window.asked = (window.asked ?? 0) + 1)}` }")
    await client.page.evaluate("client.connect()")
    connection = await client.gateway.connection()
    first = await connection.receive("auth")
    await connection.close(4001)
    second = await (await client.gateway.connection()).receive("auth")
    assert first["token"] != second["token"]


async def test_a_missing_token_is_asked_for(client: Client) -> None:
    client.gateway.auth = "required"
    await client.start()
    await client.page.evaluate("window.answer = client.ask('Who am I?')")
    connection = await client.gateway.connection()
    await client.until("client.state === 'auth'")
    assert connection.messages.empty()
    await client.page.evaluate("client.setToken('secret')")
    await connection.receive("auth")
    await connection.receive("query")


# --- cancel and errors ------------------------------------------------------------------------------------------------


async def test_a_cancel_while_away_is_sent_after_coming_back(client: Client) -> None:
    await client.start(timing="{ baseDelayMs: 60000, maxDelayMs: 60000 }", options="{ random: () => 1 }")
    connection, log = await client.ask()
    await connection.send(log.accepted(), log.chunk("half"))
    await client.until("answer.frames.length === 2")
    await connection.close(1011)
    await client.until("client.state === 'reconnecting'")
    await client.page.evaluate("answer.cancel(); client.connect()")
    second = await client.gateway.connection()
    await second.receive("resume")
    await second.receive("cancel")
    await second.send(resumed(log, 2), log.done(finish_reason="cancelled"))
    state = await client.ended()
    assert (state["finishReason"], state["text"]) == ("cancelled", "half")


async def test_a_question_that_was_never_sent_is_cancelled_on_the_spot(client: Client) -> None:
    await client.start(options="{ url: 'ws://127.0.0.1:9/' }")
    await client.page.evaluate("window.answer = client.ask('Anyone?'); answer.cancel()")
    assert (await client.ended())["finishReason"] == "cancelled"


async def test_an_error_carries_when_to_try_again(client: Client) -> None:
    await client.start()
    connection, log = await client.ask()
    log.accepted()
    log.error("overloaded", "later", retryable=True, retry_after_ms=1500)
    await connection.send(*log[:])
    error = (await client.ended())["error"]
    assert error == {"code": "overloaded", "message": "later", "retryable": True, "retryAfterMs": 1500, "local": False}


async def test_an_error_without_a_request_ends_the_only_question_it_can_mean(client: Client) -> None:
    await client.start()
    connection, _ = await client.ask()
    await connection.send({"type": "error", "code": "bad_message", "message": "query is empty", "retryable": False})
    assert (await client.ended())["error"]["code"] == "bad_message"


async def test_a_question_larger_than_the_server_takes_is_not_sent(client: Client) -> None:
    await client.start()
    connection, log = await client.ask()
    await connection.send(log.accepted(), log.done())
    await client.ended()
    await client.page.evaluate("window.answer = client.ask('年'.repeat(4_000_000))")
    assert (await client.ended())["error"]["code"] == "too_large"
    assert connection.messages.empty()


# --- the reducer ------------------------------------------------------------------------------------------------------


async def test_unknown_frames_and_unknown_fields_change_nothing(client: Client) -> None:
    log = Log("r")
    log.accepted()
    log.chunk("yes", colour="green")
    frames = [*log.frames, {"type": "toString", "seq": 2}, {"type": "novelty", "seq": 3}]
    state = await reduced(client, frames)
    assert (state["text"], state["phase"]) == ("yes", "running")


async def test_later_sources_add_numbers(client: Client) -> None:
    log = Log("r")
    log.sources(source(1, "one", "s"), source(2, "two", "s"))
    log.sources(source(3, "three", "s"))
    state = await reduced(client, log.frames)
    assert [found["title"] for found in state["sources"]] == ["one", "two", "three"]


async def test_tools_side_by_side_keep_their_own_results(client: Client) -> None:
    log = Log("r")
    log.status("tool", "Calling two tools…", count=2)
    log.tool_call("clock", {}, "a")
    log.tool_call("calculator", {"expression": "1+1"}, "b")
    log.tool_result("2", call_id="b", name="calculator")
    log.tool_result("late", call_id="a", name="clock", ok=False)
    log.status("generating", "Writing")
    log.done()
    steps = (await reduced(client, log.frames))["steps"]
    shown = [(step["kind"], step.get("name"), step["status"], step.get("result")) for step in steps]
    assert shown == [
        ("tool", "clock", "failed", "late"),
        ("tool", "calculator", "done", "2"),
        ("stage", None, "done", None),
    ]


async def test_states_are_values_that_do_not_change(client: Client) -> None:
    await client.start()
    assert await client.page.evaluate(
        """() => {
          const before = new module.AnswerState();
          const after = before.next({ type: "answer_chunk", seq: 0, content: "x" });
          return Object.isFrozen(after) && before.text === "" && after.text === "x";
        }"""
    )


# --- any order --------------------------------------------------------------------------------------------------------


def any_log(random: Random) -> list[dict[str, Any]]:
    log = Log("r")
    log.accepted()
    for _ in range(random.randint(1, 25)):
        if random.random() < 0.8:
            log.chunk("".join(random.choices("ab 年🎉", k=random.randint(0, 6))))
        else:
            random.choice([log.reset, lambda: log.status("generating", "…")])()
    log.done()
    return log.frames


def any_arrivals(frames: list[dict[str, Any]], random: Random) -> list[dict[str, Any]]:
    """Stretches of the log from anywhere to anywhere, with chunks joined at will and some frames lost."""
    arrivals = []
    for _ in range(random.randint(1, 10)):
        first = random.randrange(len(frames))
        for frame in frames[first : first + random.randint(1, 12)]:
            last = arrivals[-1] if arrivals else None
            follows = last is not None and last["type"] == frame["type"] == "answer_chunk"
            if follows and last["seq"] == frame["seq"] - 1 and random.random() < 0.6:
                begin = last.get("from_seq", last["seq"])
                arrivals[-1] = {**frame, "from_seq": begin, "content": last["content"] + frame["content"]}
            elif random.random() < 0.9:
                arrivals.append(frame)
    return arrivals


async def test_frames_that_arrive_in_any_way_come_out_as_the_log(client: Client) -> None:
    """Lost, repeated, joined, from anywhere: what does not join on is asked for and sent from there."""
    random = Random(3)
    logs = [any_log(random) for _ in range(250)]
    arrivals = [any_arrivals(frames, random) for frames in logs]
    await client.start()
    results = await client.page.evaluate(
        """([logs, arrivals]) => logs.map((frames, index) => {
          const log = new module.FrameLog();
          const out = [];
          let gaps = 0, cuts = 0;
          const feed = (frame) => {
            const accepted = log.accept(frame);
            if (accepted === module.FrameLog.GAP) {
              gaps += 1;
              for (const seq = log.next; log.next <= frame.seq && log.next < seq + 3; ) feed(frames[log.next]);
              return;
            }
            if (accepted === module.FrameLog.DUPLICATE) return;
            if (accepted !== frame) cuts += 1;
            out.push(accepted);
          };
          arrivals[index].forEach(feed);
          while (log.next < frames.length) feed(frames[log.next]);
          const state = out.reduce((state, frame) => state.next(frame), new module.AnswerState());
          return { out, gaps, cuts, text: state.text, phase: state.phase };
        })""",
        [logs, arrivals],
    )
    for frames, result in zip(logs, results, strict=True):
        assert spread(result["out"]) == spread(frames)
        assert [frame for frame in result["out"] if frame["type"] == "done"] == [frames[-1]]
        assert (result["text"], result["phase"]) == (spread(frames)[-1][2], "done")
    assert sum(result["gaps"] for result in results) > 100
    assert sum(result["cuts"] for result in results) > 20


def spread(frames: list[dict[str, Any]]) -> list[tuple[int, str, str]]:
    """Each frame that is no chunk, with the text as it stood then; nothing may be left out or come twice."""
    following, text, story = 0, "", []
    for frame in frames:
        assert frame.get("from_seq", frame["seq"]) == following
        following = frame["seq"] + 1
        text = "" if frame["type"] == "answer_reset" else text
        if frame["type"] == "answer_chunk":
            text += frame["content"]
        else:
            story.append((frame["seq"], frame["type"], text))
    return story
