from hypothesis import given
from hypothesis import strategies as st

from tunectl.artifacts.records import Document, Example, Message, ReferenceAnswer, Source
from tunectl.data.split.contamination import _index_rarest, find_contaminated, ngrams, overlap_share


def example(text, *answers):
    source = Source("f", 1)
    return Example(
        "e", source, messages=[Message("user", text)], answers=[ReferenceAnswer(answer, source) for answer in answers]
    )


LONG = "the quick brown fox jumps over the lazy dog near the old river bank"


def search(train, held, compare=("input", "answer"), ngram=4, overlap=0.8):
    return find_contaminated(train, held, compare=compare, ngram=ngram, overlap=overlap)


def test_equal_answer_in_other_clothes():
    leak = search([example("a", LONG.upper() + "!")], [example("b", LONG)])[0]
    assert (leak.train, leak.held_out, leak.what, leak.overlap) == (0, 0, "answer", 1.0)


def test_any_reference_leaks():
    assert search(
        [example("a", "other words entirely here now", LONG)], [example("b", "nothing of the kind here", LONG)]
    )


def test_held_text_inside_a_longer_one():
    assert search([example("a", f"We begin. {LONG} And so on, and so on, for a while.")], [example("b", LONG)])


def test_overlap_below_the_limit_is_no_leak():
    half = " ".join(LONG.split()[:8]) + " and then something else follows"
    assert not search([example("a", half)], [example("b", LONG)])
    assert search([example("a", half)], [example("b", LONG)], overlap=0.4)


def test_short_answers_never_leak_but_short_inputs_do():
    assert not search([example("a", "yes")], [example("b", "Yes")])
    assert [leak.what for leak in search([example("Is it?", "yes")], [example("is it", "no")])] == ["input"]


def test_worst_leak_of_a_record_counts_once():
    found = search([example(LONG, LONG)], [example(LONG, LONG), example("x", LONG)])
    assert [(leak.train, leak.overlap) for leak in found] == [(0, 1.0)]


def test_a_document_or_an_earlier_turn_that_contains_the_answer_is_a_leak():
    page = Document("d", f"Welcome. {LONG} Bye.", Source("page.html"))
    earlier = Example(
        "e",
        Source("f"),
        [Message("user", "a"), Message("assistant", LONG), Message("user", "b")],
        [ReferenceAnswer("c", Source("f"))],
    )
    assert [leak.train for leak in search([page, earlier], [example("b", LONG)], compare=("answer",))] == [0, 1]
    assert not search([earlier], [example(LONG, "short")], compare=("answer",))


def test_scripts_without_spaces_are_compared_by_their_signs():
    chinese, thai = "今天天气很好我们一起去公园散步吧", "วันนี้อากาศดีมากเราไปเดินเล่นที่สวนกันเถอะ"
    for text in (chinese, thai):
        assert search([example("a", f"嗯 {text}。")], [example("b", text)], compare=("answer",), ngram=8)
        assert overlap_share([example("a", text)], [example("b", text)]) == 1.0
    assert not search([example("a", "明天下雨所以我们都留在家里看电影")], [example("b", chinese)], ngram=8)


def test_a_sentence_that_ends_every_answer_costs_no_time():
    ending = "please let me know if there is anything else that i can help you with today"
    held = [f"held out answer number {row} with its own {row} words, then {ending}" for row in range(200)]
    index = _index_rarest([ngrams(text.split(), 8) for text in held], 0.8)
    assert max(map(len, index.values())) == 1  # nobody is looked up by what all have


@given(
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=12), min_size=1, max_size=6),
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=12), min_size=1, max_size=6),
    st.sampled_from([0.1, 1 / 3, 0.5, 0.7, 0.8, 1.0]),
)
def test_the_index_overlooks_nothing(train, held, overlap):
    def grams(tokens):
        return ngrams(tokens, 2)

    expected = {
        row
        for row, tokens in enumerate(train)
        if any(grams(other) and len(grams(tokens) & grams(other)) / len(grams(other)) >= overlap for other in held)
    }
    leaks = search(
        [example("t", " ".join(tokens)) for tokens in train],
        [example("h", " ".join(tokens)) for tokens in held],
        compare=("answer",),
        ngram=2,
        overlap=overlap,
    )
    assert {leak.train for leak in leaks} == expected


def test_only_what_is_compared():
    assert not search([example(LONG, "a")], [example(LONG, "b")], compare=("answer",))


def test_seen_share_counts_runs_as_often_as_they_occur():
    held = [example("h", "a b c d e"), example("h", "a b c d")]
    assert overlap_share([example("t", "x a b c d")], held) == 2 / 3
    assert overlap_share([], held) == 0.0
    assert overlap_share([example("t", "a b c d")], [example("h", "too short")]) is None


@given(st.lists(st.sampled_from("abcdef"), min_size=4, max_size=30))
def test_a_text_always_gives_itself_away(tokens):
    text = " ".join(tokens)
    assert search([example("a", text)], [example("b", text)])[0].overlap == 1.0
    assert overlap_share([example("a", text)], [example("b", text)]) == 1.0


def test_pieces():
    assert ngrams(["a", "b"], 3) == set()
    assert ngrams(["a", "b"], 3, whole=True) == {("a", "b")}
    assert ngrams(["a", "b", "c"], 2) == {("a", "b"), ("b", "c")}
