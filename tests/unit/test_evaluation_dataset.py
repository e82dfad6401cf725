"""Reading evaluation sets, and making them from SQuAD- and CMRC-style files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation import against_bm25, convert
from evaluation.dataset import BadDataset, Entry, entry_map, read_dataset

GOOD = {"id": "1", "question": "Who?", "documents": ["a.md"]}


def read(folder: Path, *lines: Any) -> list[Entry]:
    path = folder / "set.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return list(read_dataset(path).entries)


def test_a_line_may_have_all_fields(tmp_path: Path) -> None:
    full = {
        "id": "q",
        "question": "Wer?",
        "language": "en",
        "documents": {"a.md": 3, "b.md": 1},
        "passages": ["text"],
        "answer": ["one", "two"],
        "conversation": ["before"],
    }
    (entry,) = read(tmp_path, full, "")
    assert entry == Entry("q", "Wer?", "en", {"a.md": 3, "b.md": 1}, ("text",), ("one", "two"), False, ("before",))
    assert entry_map(entry) == full


def test_one_text_may_stand_for_a_list(tmp_path: Path) -> None:
    (entry,) = read(tmp_path, {**GOOD, "answer": "yes", "passages": "there"})
    assert (entry.answers, entry.passages) == (("yes",), ("there",))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ('{"id": "1", "question": "\\ud83d", "documents": ["a"]}', "half of a character"),
        ("[1]", "expected an object"),
        ({**GOOD, "documnets": []}, "no field `documnets`"),
        ({**GOOD, "id": ""}, "`id`"),
        ({**GOOD, "question": 3}, "`question`"),
        ({**GOOD, "question": "x" * 40_000}, "`question`: longer"),
        ({**GOOD, "language": "fr"}, '`language`: expected "zh" or "en"'),
        ({**GOOD, "documents": "a.md", "answer": [""]}, "`documents`|`answer`"),
        ({**GOOD, "documents": {"a.md": 0}}, "`documents`: the grade of 'a.md'"),
        ({**GOOD, "documents": {"a.md": True}}, "`documents`: the grade"),
        ({**GOOD, "passages": [1]}, "`passages`"),
        ({**GOOD, "unanswerable": 1}, "`unanswerable`"),
        ({**GOOD, "unanswerable": True}, "with `unanswerable`"),
        ({"id": "1", "question": "Who?"}, "name `documents`"),
        ({**GOOD, "conversation": ["x"] * 21}, "`conversation`: 21"),
    ],
)
def test_what_is_wrong_is_named_with_its_line_and_field(tmp_path: Path, line: Any, says: str) -> None:
    with pytest.raises(BadDataset, match=f"line 2.*({says})"):
        read(tmp_path, {**GOOD, "id": "0"}, line)


def test_an_id_twice_and_no_question_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="line 2, `id`: '1' is also that of line 1"):
        read(tmp_path, GOOD, GOOD)
    with pytest.raises(BadDataset, match="0 questions"):
        read(tmp_path, "")
    with pytest.raises(BadDataset, match="No such file"):
        read_dataset(tmp_path / "none.jsonl")


def test_a_file_of_windows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\r\n")
    assert [entry.id for entry in read_dataset(path).entries] == ["1"]


def test_a_sample_is_the_same_for_the_same_seed_and_in_order(tmp_path: Path) -> None:
    read(tmp_path, *({**GOOD, "id": str(at)} for at in range(50)))
    dataset = read_dataset(tmp_path / "set.jsonl")
    first, again, other = (dataset.some(10, seed).entries for seed in (1, 1, 2))
    assert first == again != other
    assert [int(entry.id) for entry in first] == sorted(int(entry.id) for entry in first)
    assert dataset.some(99, 1) is dataset


def squad() -> dict[str, Any]:
    return {
        "data": [
            {
                "paragraphs": [
                    {
                        "context": "Rouen is in France.",
                        "qas": [
                            {"id": "a", "question": "Where is Rouen? ", "answers": [{"text": "France"}] * 2},
                            {"id": "b", "question": "Who rules it?", "answers": [], "is_impossible": True},
                        ],
                    },
                    {"context": "Rouen lies in the north.", "qas": [{"id": "c", "question": "Where is Rouen?"}]},
                    {"context": "Rouen is in France.", "qas": []},
                ]
            }
        ]
    }


def test_squad_becomes_distinct_documents_and_questions() -> None:
    converted = convert.convert_squad(squad())
    first, second = map(convert.name_of, ("Rouen is in France.", "Rouen lies in the north."))
    assert list(converted.documents) == [first, second]
    where, who = converted.entries
    assert where == Entry("a", "Where is Rouen?", "en", {first: 1, second: 1}, (), ("France",))
    assert (who.unanswerable, who.documents) == (True, {})
    assert converted.answerable().entries == [where]


def test_cmrc_in_its_own_form_is_read() -> None:
    paragraph = {
        "context_id": "TRIAL_1",
        "context_text": "鲁昂在法国。",
        "qas": [{"query_id": "TRIAL_1_Q", "query_text": "鲁昂在哪里?", "answers": ["法国", "法国"]}],
    }
    converted = convert.convert_squad([paragraph])
    name = convert.name_of("鲁昂在法国。")
    assert converted.entries == [Entry("TRIAL_1_Q", "鲁昂在哪里?", "zh", {name: 1}, (), ("法国",))]


@pytest.mark.parametrize(
    "answers", [{"text": ["France", "France"], "answer_start": [0, 0]}, "France", {"text": "France"}, ["France"]]
)
def test_answers_may_have_other_forms(answers: Any) -> None:
    raw = squad()
    raw["data"][0]["paragraphs"][0]["qas"][0]["answers"] = answers
    assert convert.convert_squad(raw).entries[0].answers == ("France",)


def test_no_less_than_one_question_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["f", "--sample", "-1"], ["f", "--concurrency", "0"]):
        with pytest.raises(SystemExit):
            against_bm25.main(argv)
        assert "is not from 1 to" in capsys.readouterr().err


def test_what_is_written_is_a_set_with_its_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.json").write_text(json.dumps(squad()), encoding="utf-8")
    out = tmp_path / "out"
    assert convert.main(["squad", str(tmp_path / "in.json"), "--out", str(out), "--sample", "1"]) == 0
    (entry,) = read_dataset(out / "questions.jsonl").entries
    assert len(list((out / "documents").iterdir())) == 2, "all paragraphs stay, whatever is asked"
    assert all((out / "documents" / name).read_text() for name in entry.documents)
    assert "1 questions" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["{", '{"data": 1}', '{"data": [{"paragraphs": [{"context": 1}]}]}', "[]", "3"])
def test_another_file_is_refused_in_a_sentence(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.json").write_text(content)
    assert convert.main(["squad", str(tmp_path / "in.json"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("convert: ")
