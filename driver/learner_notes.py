"""What is told of a run's learners before they start: settings that have no effect where they are (`learner_notes`)."""

from plumbob.configs.runs import AnyRun
from plumbob.configs.settings.workers import LearnerSettings


def learner_notes(config: AnyRun) -> tuple[str, ...]:
    """On CPUs there is no other memory to move anything to or from."""
    learner = config.learner
    if not isinstance(learner, LearnerSettings) or learner.num_gpus:
        return ()
    notes = []
    if learner.optimizer == "paged_adamw_8bit":
        notes.append("learner.optimizer=paged_adamw_8bit: on CPUs nothing is paged, and it is adamw_8bit")
    asked = [key for key in ("offload_optimizer", "offload_params") if getattr(learner, key) != "none"]
    if asked:
        keys = " and ".join(f"learner.{key}" for key in asked)
        notes.append(f"{keys}: ranks on CPUs have all they hold in main memory, and nothing is moved")
    return tuple(notes)
