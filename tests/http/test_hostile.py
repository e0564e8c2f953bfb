"""The fuzzers' corpora, and mutations of them, through the door: see hostile.py, which can go on for longer."""
from hostile import FLAGS, Attack, load_corpus


def test_corpora_are_there():
    corpus = load_corpus()
    assert {"fuzz_audio", "fuzz_grid", "fuzz_headers", "fuzz_input", "fuzz_request"} <= set(corpus)
    assert all(corpus.values())


def test_strangers_get_answers_and_leave_nothing_behind(start):
    with start(*FLAGS) as daemon:
        attack = Attack(daemon, seed=7)
        attack.run(4)
        attack.settle()
        before = attack.facts()
        attack.run(6)
        attack.settle()
        attack.compare(before)
        assert attack.count > 100
