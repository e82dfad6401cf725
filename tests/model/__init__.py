"""The baton rule as a small model, searched completely within its bounds (docs/adr/0010-the-rules-are-model-checked.md).

`rules.py` has one switch for each clause of the seven rules, `state.py` what there is at one moment, `worker.py` and
`gateway.py` every step that can follow, `properties.py` what must never happen, `search.py` the search. The decisions of
a writer after a bad answer, and of a reader about an entry, are those of the real `Sequencer` and `Assembler` (`real.py`).

    PYTHONPATH=proto:. python -m tests.model                # all rules: nothing may go wrong
    PYTHONPATH=proto:. python -m tests.model --without 3    # what goes wrong without rule 3
"""
