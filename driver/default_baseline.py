"""What an evaluated policy is compared with where nobody says: what the run that trained it began from."""

from pathlib import Path

from plumbob.configs.paths import ADAPTER_CONFIG_FILE, is_folder, is_there
from plumbob.configs.resolved_copy import RESOLVED_FILE, read_resolved
from plumbob.configs.runs import AnyRun, EvalRun, PipelineRun
from plumbob.configs.settings.models import PolicySettings
from plumbob.core.errors import UserError
from plumbob.driver.pipeline.pipeline import stage_folders


def with_default_baseline(run: EvalRun) -> EvalRun:
    """The same evaluation, of a run's adapter against what that run began from.

    As it is where a baseline is given, the policy is no adapter, or it is not in the folder of the run that trained it:
    an adapter is then compared with its base.

    Raises:
        UserError: what the run began from is not there any more, or its settings cannot be read.
    """
    policy = run.policy
    if policy is None or policy.baseline is not None:
        return run
    folder = Path(policy.model).expanduser()
    if not is_there(folder / ADAPTER_CONFIG_FILE):
        return run
    began = began_from(folder.resolve())
    if began is None:
        return run
    if Path(began).is_absolute() and not is_folder(Path(began)):
        raise UserError(
            f"policy.model={policy.model}: is compared with what its run began from, {began}, and that is not there "
            f"any more; give what it is to be compared with: policy.baseline=FOLDER"
        )
    return run.model_copy(update={"policy": policy.model_copy(update={"baseline": began})})


def began_from(policy: Path) -> str | None:
    """The model that the run or the stage of a pipeline began from whose result is `policy`; None where there is none.

    Args:
        policy: absolute path of the folder.
    """
    folder = next((each for each in policy.parents[:2] if (each / RESOLVED_FILE).is_file()), None)
    return None if folder is None else _began_from(read_resolved(folder), folder, policy)


def _began_from(run: AnyRun, folder: Path, policy: Path) -> str | None:
    if isinstance(run, PipelineRun):
        stages = stage_folders(run, folder)
        began = {stages.sft: stages.pretrained, stages.online: stages.sft, stages.dpo: stages.sft}
        return began.get(str(policy))
    trained = dict(run).get("policy")
    return trained.model if isinstance(trained, PolicySettings) and policy == folder / "policy" else None
