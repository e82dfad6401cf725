"""The golden vectors hold for this binding, and released ones have not been rewritten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest

from baton_proto import codec, messages, subjects
from baton_proto.client import BadMessage, parse_client_message
from baton_proto.readers import may_read, principals
from baton_proto.vectors.__main__ import main
from baton_proto.vectors.store import FILES, case_bytes, compare
from tests.golden.reading import read, write

FOLDER = Path(__file__).parents[2] / "proto" / "vectors" / "v1"


def cases(name: str) -> list[Any]:
    loaded = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return [pytest.param(case, id=case["name"]) for case in loaded]


def test_the_vectors_are_the_ones_this_code_makes() -> None:
    assert main(["--folder", str(FOLDER)]) == 0


def test_every_file_of_vectors_is_known() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(FILES)


@pytest.mark.parametrize("case", cases("accepted"))
def test_an_accepted_message_has_its_meaning(case: dict[str, Any]) -> None:
    assert read(case["kind"], case_bytes(case)) == case["meaning"]


@pytest.mark.parametrize("case", cases("accepted"))
def test_an_accepted_message_is_plain_msgpack(case: dict[str, Any]) -> None:
    raw = msgpack.unpackb(case_bytes(case))
    assert raw["v"] == 1
    if case["written_so"]:
        assert raw == case["meaning"]


@pytest.mark.parametrize("case", cases("accepted"))
def test_a_meaning_is_written_as_the_same_message(case: dict[str, Any]) -> None:
    data = write(case["kind"], case["meaning"])
    assert read(case["kind"], data) == case["meaning"]
    if case["written_so"]:
        assert data == case_bytes(case)


@pytest.mark.parametrize("case", [case for case in cases("accepted") if "shown" in case.values[0]])
def test_clients_see_the_frames_of_an_entry_without_hand_offs(case: dict[str, Any]) -> None:
    entry = codec.decode(case_bytes(case), messages.LogEntry)
    for frame, shown in zip(entry.frames, case["shown"], strict=True):
        assert json.loads(codec.client_bytes(codec.client_map(entry.request_id, frame), binary=False)) == shown
        assert "handoff" not in shown
        assert shown["request_id"] == entry.request_id


@pytest.mark.parametrize("case", cases("rejected"))
def test_a_rejected_message_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(codec.WireError):
        read(case["kind"], case_bytes(case))


@pytest.mark.parametrize("case", cases("client_accepted"))
def test_a_clients_message_means_the_same_in_json_and_msgpack(case: dict[str, Any]) -> None:
    text = parse_client_message(case["json"].encode(), binary=False)
    assert msgspec.to_builtins(text) == case["meaning"]
    assert parse_client_message(bytes.fromhex(case["msgpack"]), binary=True) == text


@pytest.mark.parametrize("case", cases("client_rejected"))
def test_a_clients_bad_message_gets_its_code(case: dict[str, Any]) -> None:
    with pytest.raises(BadMessage) as caught:
        parse_client_message(case_bytes(case), binary=case["binary"])
    assert (caught.value.code, caught.value.request_id) == (case["code"], case["request_id"])
    assert 0 < len(caught.value.message) < 300
    caught.value.message.encode()


@pytest.mark.parametrize("case", cases("connection"))
def test_a_connection_frame_is_the_same_in_json_and_msgpack(case: dict[str, Any]) -> None:
    frame = json.loads(case["json"])
    assert msgpack.unpackb(bytes.fromhex(case["msgpack"])) == frame
    assert "seq" not in frame


@pytest.mark.parametrize("case", cases("addresses"))
def test_an_address_has_its_subjects(case: dict[str, Any]) -> None:
    key = subjects.request_key(case["owner"], case["request_id"])
    at = subjects.address(key, case["shards"])
    assert (key, at.shard) == (case["key"], case["shard"])
    assert subjects.log_stream(at.shard) == case["stream"]
    assert (subjects.log_subject(at), subjects.live_subject(at)) == (case["log"], case["live"])
    assert subjects.cancel_subject(key) == case["cancel"]


@pytest.mark.parametrize("case", cases("stages"))
def test_a_stage_has_its_names(case: dict[str, Any]) -> None:
    stage = case["stage"]
    assert subjects.work_subject(stage) == case["work"]
    assert subjects.work_consumer(stage) == case["consumer"]
    assert subjects.dead_subject(stage) == case["dead"]
    assert subjects.presence_subject(stage) == case["presence"]


@pytest.mark.parametrize("case", cases("queues"))
def test_a_queue_has_its_names(case: dict[str, Any]) -> None:
    queue = subjects.queue_name(case["stage"], case["variant"])
    assert queue == case["queue"]
    assert subjects.work_subject(queue) == case["work"]
    assert subjects.work_consumer(queue) == case["consumer"]
    assert subjects.presence_subject(queue) == case["presence"]


@pytest.mark.parametrize("case", cases("handoffs"))
def test_a_hand_off_has_its_names(case: dict[str, Any]) -> None:
    assert subjects.work_message_id(case["key"], case["seq"]) == case["message_id"]
    assert subjects.handoff_object(case["key"], case["seq"]) == case["object"]


@pytest.mark.parametrize("case", cases("readers"))
def test_a_request_stands_for_its_principals_and_reads_what_names_one(case: dict[str, Any]) -> None:
    who = principals(case["owner"], case["claims"])
    assert sorted(who) == case["principals"]
    for document in case["documents"]:
        assert may_read(document["readers"], who) is document["may_read"], document
        assert document["may_read"] is bool(set(document["readers"]) & set(case["principals"]))


def test_every_frame_and_message_has_a_vector() -> None:
    accepted = [param.values[0] for param in cases("accepted")]
    kinds = {case["kind"] for case in accepted} | {param.values[0]["kind"] for param in cases("connection")}
    assert {"LogEntry", "WorkRef", "WorkItem", "Announcement", "CancelOrder", "DeadWork"} <= kinds
    assert {"Hello", "Resumed", "Pong", "ConnectionError"} <= kinds
    shown = {frame["type"] for case in accepted for frame in case.get("shown", [])}
    assert shown == {kind.__struct_config__.tag for kind in messages.LogFrame.__args__}
    sent = {param.values[0]["meaning"]["type"] for param in cases("client_accepted")}
    assert sent == {kind.__struct_config__.tag for kind in messages.ClientMessage.__args__}


def test_a_released_vector_is_never_rewritten() -> None:
    released = [{"name": "a", "hex": "00"}, {"name": "b", "hex": "01"}]
    made = [{"name": "a", "hex": "ff"}, {"name": "c", "hex": "02"}]
    difference = compare(released, made)
    assert difference.changed == ["'a' has changed", "'b' is no longer made"]
    assert difference.all == [*released, {"name": "c", "hex": "02"}]


def test_adding_writes_new_vectors_and_leaves_the_rest_alone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--folder", str(tmp_path)]) == 1
    assert main(["--folder", str(tmp_path), "--add"]) == 0
    assert main(["--folder", str(tmp_path)]) == 0
    stages = tmp_path / "stages.json"
    tampered = stages.read_text().replace("tools.default", "tools.other")
    stages.write_text(tampered)
    assert main(["--folder", str(tmp_path), "--add"]) == 1
    assert stages.read_text() == tampered
    assert "never rewritten" in capsys.readouterr().err
