"""The workers of a run by what they are doing, in words."""

from plumbob.trainers.metrics.step_record import WorkerCounts

NOUNS = {"rollout": "rollout workers", "scorer": "scorers", "gold_scorer": "gold scorers", "learner": "learners"}


def worker_words(workers: WorkerCounts) -> list[str]:
    """A piece a role, such as "3 rollout workers: 2 sampling, 1 idle"; a learner does not say what it is doing."""
    words = []
    for role, states in workers.items():
        count = sum(states.values())
        noun = NOUNS.get(role, f"{role}s")
        head = f"{count} {noun if count != 1 else noun.removesuffix('s')}"
        doing = [f"{num} {state}" if count > 1 else state for state, num in states.items() if state]
        words.append(f"{head}: {', '.join(doing)}" if doing else head)
    return words
