"""Languages, topics, openings and groups of people, on rows whose counts are known."""

from plumbob.data.audit.audited_rows import AuditedRow
from plumbob.data.audit.demographic_terms import GROUPS, mentions
from plumbob.data.audit.diversity import diversity_of, languages_of, sampled, topics_of
from plumbob.data.audit.report_findings import findings_of


def test_languages_are_told_of_texts_that_are_long_enough() -> None:
    texts = [
        "The weather is fine today, and the children play in the garden.",
        "Das Wetter ist heute schön, und die Kinder spielen im Garten.",
        "Il fait beau aujourd'hui, et les enfants jouent dans le jardin.",
        "ok",
    ]
    assert languages_of(texts) == {"en": 1, "de": 1, "fr": 1, "too short": 1}


def test_a_word_that_all_texts_have_is_no_topic() -> None:
    texts = ["bread needs flour and yeast", "bread needs flour and salt", "bread about horses", "bread about horses"]
    found = {one["word"]: one["num_rows"] for one in topics_of(texts)}
    assert found["flour"] == 2 and found["horses"] == 2
    # Of all texts: log(4/4) = 0, and behind all others; of one text alone: none at all.
    assert "yeast" not in found and list(found)[-1] == "bread"


def test_groups_are_counted_once_a_text_and_by_whole_words() -> None:
    counts = mentions(
        ["She and her mother", "a man, a woman", "manual human mankind", "Native Americans and native speakers"]
    )
    assert counts["gender"] == {"women": 2, "men": 1, "nonbinary and transgender people": 0}
    assert counts["origin"]["indigenous peoples"] == 1
    terms = [term for groups in GROUPS.values() for own in groups.values() for term in own]
    assert len(terms) == len(set(terms)) and all(term == term.lower() for term in terms)


def test_a_sample_is_spread_evenly() -> None:
    rows = [AuditedRow(str(number), "prompt", "x") for number in range(100)]
    assert [row.label for row in sampled(rows, 4)] == ["0", "25", "50", "75"]
    assert sampled(rows, 100) == rows


def test_what_is_thin_is_named() -> None:
    rows = [
        AuditedRow(f"row {number}", "pair", "\n\nHuman: Who is he? Tell me more of him, please.\n\nAssistant:",
                   ("A man of the town, who bakes bread.", "No."), "ann" if number else "bob")
        for number in range(40)
    ] + [AuditedRow("last", "pair", "Is she a woman?", ("Yes.", "No."), "ann")]  # fmt: skip
    found = diversity_of(rows)
    assert found["forms"] == {"pair": 41} and found["annotators"] == {"ann": 40, "bob": 1}
    assert found["first_words"] == {"who is": 40, "is she": 1}
    assert found["lengths"]["response"] == {"least": 1, "5%": 1, "median": 1, "95%": 8, "most": 8}
    assert (found["groups"]["gender"]["men"], found["groups"]["gender"]["women"]) == (40, 1)
    nothing = {"num_same": 0, "num_near": 0}
    words = findings_of({"duplicates": nothing, "num_rows": 41, "leaks": None, "benchmarks": [], "personal": None,
                         "diversity": found, "labels": None})  # fmt: skip
    assert [
        line
        for line in words
        if line.startswith("gender: thin are women (1), nonbinary and transgender people (0), against men")
    ]
    assert any("98% of the rows are of one annotator, ann" in line for line in words)
    assert any("of one language, en" in line for line in words)
