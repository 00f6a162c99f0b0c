"""A loss of the user's: the numbers of ours where it computes the same, and each error said before a run starts."""

from pathlib import Path

import pytest
import torch

from plumbob.configs.settings.offline_objectives import DpoLoss, FunctionLoss
from plumbob.core.errors import RunFailed, UserError
from plumbob.trainers.algorithms.function_loss import check_loss, function_loss, load_loss
from plumbob.trainers.algorithms.preference_losses import check_users_loss, load_users_loss, preference_loss

DPO = """
import torch.nn.functional as F

print("imported")


def loss(chosen, rejected, ref_chosen, ref_rejected):
    return -F.logsigmoid(0.5 * ((chosen - ref_chosen) - (rejected - ref_rejected)))
"""


def write(folder: Path, source: str, name: str = "loss") -> str:
    path = folder / "my_loss.py"
    path.write_text(source)
    return f"{path}:{name}"


def body(expression: str) -> str:
    return f"import torch\n\ndef loss(chosen, rejected, ref_chosen, ref_rejected):\n    return {expression}\n"


def test_dpo_as_a_function_has_the_loss_and_the_gradient_of_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    settings = FunctionLoss(function=write(tmp_path, DPO))
    check_users_loss(settings)
    load_users_loss(settings)
    assert capsys.readouterr() == ("", "imported\nimported\n")
    for loss in (DpoLoss(beta=0.5), settings):
        logprobs = torch.tensor([[-6.0, -9.0], [-4.0, -2.0]], requires_grad=True)
        reference = torch.tensor([[-8.0, -8.0], [-3.0, -3.0]])
        sums = preference_loss(loss, logprobs, reference, torch.ones(2, 2), torch.zeros(2))
        (gradient,) = torch.autograd.grad(sums.loss, logprobs)
        found.append((sums.loss.item(), gradient.tolist(), sums.statistics["accuracy"].item()))
        rewards = sums.statistics["margin"].item(), sums.statistics["chosen_reward"].item()
    assert found[0] == found[1]
    # Of a function the rewards are log-ratios: margins 3 and -2, of the chosen ones 2 and -1.
    assert rewards == (1.0, 1.0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (body("(chosen - rejected).sigmoid().mean()"), "gave a tensor of shape []; expected the losses of the pairs"),
        (body("0.5"), "gave a float; expected a tensor of 3 losses"),
        (body("-(chosen - rejected) + chosen.mean()"), "a pair's loss must not depend on which others are computed"),
        (body("(chosen - rejected).detach()"), "nothing would be learnt: its gradient by log pi"),
        (body("ref_chosen - ref_rejected"), "nothing would be learnt"),
        (body("(chosen - rejected).log()"), "expected finite losses"),
        (body("chosen.nothing()"), "raised AttributeError: 'Tensor' object has no attribute 'nothing'"),
        ("def loss(chosen, rejected):\n    return chosen\n", "raised TypeError: loss() takes 2 positional arguments"),
        ("import no_such_module\n", "cannot be imported: No module named 'no_such_module'"),
        ("def other():\n    pass\n", "has no loss; its functions: other"),
    ],
)
def test_what_is_no_loss_is_told_before_a_run_starts(tmp_path: Path, source: str, message: str) -> None:
    function = write(tmp_path, source)
    with pytest.raises(UserError) as refused:
        check_loss(function)
    assert str(refused.value).startswith(f"loss.function={function}") and message in str(refused.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file on this host"):
        check_loss(f"{tmp_path}/none.py:loss")


def test_a_learner_takes_the_source_as_it_is_when_it_is_made(tmp_path: Path) -> None:
    ones = torch.ones(2, 2)
    function = write(tmp_path, body("2 * chosen"))
    load_loss(function)
    write(tmp_path, body("3 * chosen"))
    assert function_loss(function, ones, ones).tolist() == [2.0, 2.0]
    load_loss(function)
    assert function_loss(function, ones, ones).tolist() == [3.0, 3.0]


def test_one_that_raises_during_a_run_ends_it_with_its_own_lines(tmp_path: Path) -> None:
    function = write(tmp_path, body("chosen if len(chosen) < 3 else chosen.nothing()"))
    load_loss(function)
    with pytest.raises(RunFailed) as failed:
        function_loss(function, torch.ones(3, 2), torch.ones(3, 2))
    assert "my_loss.py" in str(failed.value) and "chosen.nothing()" in str(failed.value)
