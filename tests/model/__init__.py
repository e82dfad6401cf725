"""The baton rule as a small model that is searched completely (docs/adr/0010-the-rules-are-model-checked.md).

`rules.py` has one switch for each clause of the seven rules, `bounds.py` how far a search goes, `state.py` what there
is at one moment, `worker.py` and `gateway.py` every step that can follow, `properties.py` what must never happen,
`search.py` the search. What a writer does after a bad answer, and a reader with an entry, the real `Sequencer` and
`Assembler` decide (`real.py`).

    PYTHONPATH=proto:. python -m tests.model                # all rules: nothing may go wrong
    PYTHONPATH=proto:. python -m tests.model --without 3    # what goes wrong without rule 3
"""
