"""Writes prompts whose instructions a program can verify, for the preset `smollm2-instructions`.

    python examples/verifiable_instructions.py FOLDER

Each row of `prompts.jsonl` and `heldout.jsonl` is a question about a topic and an instruction for its answer
(`prompt`), and what the rule `instructions` checks (`checks`). No topic is in both files.
"""

import json
import sys
from pathlib import Path

TOPICS = (
    "rain", "bread", "the moon", "bees", "chess", "volcanoes", "tea", "bicycles", "whales", "libraries", "snow", "maps",
    "guitars", "deserts", "sleep", "gold", "rivers", "clocks", "cheese", "trees", "trains", "paper", "dreams", "salt",
    "cats", "bridges", "stars", "soap", "islands", "windmills", "honey", "mirrors", "football", "spiders", "kites",
    "glass", "earthquakes", "coffee", "lighthouses", "horses", "candles", "rainbows", "potatoes", "ships", "owls",
    "wool", "fountains", "drums",
)  # fmt: skip
NUM_HELDOUT_TOPICS = 16

INSTRUCTIONS = (
    ("Answer in exactly one sentence.", [{"kind": "sentences", "max": 1}]),
    ("Write in lower case only, without any capital letters.", [{"kind": "lowercase"}]),
    ("Do not use any commas.", [{"kind": "no-commas"}]),
    ("Use at most 12 words.", [{"kind": "words", "max": 12}]),
    ("Write in CAPITAL LETTERS only.", [{"kind": "uppercase"}]),
    ('Begin with the words "In my view".', [{"kind": "starts-with", "text": "In my view"}]),
    ("Put the whole answer in double quotation marks.", [{"kind": "quoted"}]),
    ("Mention the word gentle.", [{"kind": "mention", "text": "gentle"}]),
)


def rows_of(topics: tuple[str, ...]) -> list[dict[str, object]]:
    return [
        {"prompt": [{"role": "user", "content": f"Tell me something about {topic}. {asked}"}], "checks": checks}
        for topic in topics
        for asked, checks in INSTRUCTIONS
    ]


def write_prompts(folder: Path) -> list[Path]:
    """The held-out prompts and those to learn from, in a new or existing folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"heldout.jsonl": TOPICS[:NUM_HELDOUT_TOPICS], "prompts.jsonl": TOPICS[NUM_HELDOUT_TOPICS:]}
    for name, topics in files.items():
        lines = (json.dumps(row) + "\n" for row in rows_of(topics))
        (folder / name).write_text("".join(lines), encoding="utf-8")
    return [folder / name for name in files]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/verifiable_instructions.py FOLDER")
    print(*write_prompts(Path(sys.argv[1])), sep="\n")


if __name__ == "__main__":
    main()
