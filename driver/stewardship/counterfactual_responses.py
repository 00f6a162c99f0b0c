"""A policy responds to prompts and to the same with another group's terms; a reward scores the responses."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from plumbob.configs.checks.input_checks import check_bias
from plumbob.configs.load_run import load_eval
from plumbob.configs.paths import absolute
from plumbob.configs.runs import EvalRun
from plumbob.configs.settings.models import REWARD_MODEL, ModelRef
from plumbob.configs.settings.rewards import ModelReward, Reward
from plumbob.configs.settings.stewardship.bias_checks import BiasCheckSettings
from plumbob.configs.settings.workers import TransformersEngine
from plumbob.core.activities import activities
from plumbob.core.errors import UserError
from plumbob.data.bias.crows_pairs import Values
from plumbob.data.bias.probe_texts import probe_texts
from plumbob.data.bias.term_pairs import read_term_pairs
from plumbob.data.bias.term_swaps import Counterfactual
from plumbob.data.prompts import EncodedPrompt
from plumbob.data.records import make_prompt
from plumbob.data.texts.chat_text import Message, chat_renderer
from plumbob.data.tokenization import encode_prompt_ids
from plumbob.driver.stewardship.reward_bias import find_reward_model
from plumbob.models.adapter import load_adapter
from plumbob.models.loading import OpenedPolicy
from plumbob.reward.open_scorer import check_reward, open_scorer
from plumbob.reward.reward_models.reward_prompts import RewardPrompts
from plumbob.reward.scorer import ScoreRequest
from plumbob.rollout.requests import sample_requests
from plumbob.rollout.samplers.sampler import SamplerSpec
from plumbob.rollout.samplers.transformers_sampler import TransformersSampler


@dataclass(frozen=True)
class CounterfactualPrompts:
    """What is asked, and what scores it.

    Attributes:
        reward: scores the responses. A reward model's own bias shows too: `plumbob bias reward` measures that.
        terms: a file with pairs of terms; None takes ours.
        num_prompts: pairs of prompts at most, spread evenly over those that there are.
        max_tokens: of a response.
    """

    reward: Reward
    terms: str | None = None
    num_prompts: int = 200
    max_tokens: int = 64
    temperature: float = 1.0
    seed: int = 0
    device: str = "cpu"

    @activities.during("responding to prompts with either group's terms")
    def values(self, opened: OpenedPolicy) -> Values:
        """Of each contrast: the score of the response where the first group is named, less that of the second.

        Both responses of a pair are drawn by the same seed. UserError where the reward cannot be used.
        """
        check_reward(self.reward)
        pairs = self._pairs()
        prompts = RewardPrompts(self.reward)
        requests = self._requests(opened, pairs, prompts)
        scores = [score.total for score in open_scorer(self.reward, self.device).score(requests)]
        found: Values = {}
        for pair, (first, second) in zip(pairs, np.array(scores).reshape(-1, 2).tolist(), strict=True):
            contrast = pair.contrast
            name = f"responses, {contrast.dimension}: {contrast.first} - {contrast.second}"
            found.setdefault(name, {})[pair.case] = first - second
        return found

    def _pairs(self) -> list[Counterfactual]:
        """Those whose prompts name a group, the same question with the same terms once."""
        found = [pair for pair in probe_texts(read_term_pairs(self.terms)) if pair.first[0] != pair.second[0]]
        if not found:
            raise UserError(
                f"--terms={self.terms}: no pair of terms has a question that names it; see `plumbob bias terms`"
            )
        num_kept = min(self.num_prompts, len(found))
        return [found[index * len(found) // num_kept] for index in range(num_kept)]

    def _requests(
        self, opened: OpenedPolicy, pairs: list[Counterfactual], prompts: RewardPrompts
    ) -> list[ScoreRequest]:
        tokenizer = opened.tokenizer
        has_template = bool(tokenizer.chat_template)
        render = prompts.beside(chat_renderer(tokenizer)) if has_template else None

        def written(question: str) -> str:
            messages: list[Message] = [{"role": "user", "content": question}]
            return question if render is None else render(messages)

        texts = [written(text[0]) for pair in pairs for text in (pair.first, pair.second)]
        encoded = [
            EncodedPrompt(make_prompt(text).prompt_id, text, ids)
            for text, ids in zip(texts, encode_prompt_ids(tokenizer, texts), strict=True)
        ]
        asked = [
            replace(request, seed=other.seed)
            for request, other in zip(
                sample_requests(encoded, 1, 0, self.seed),
                [one for one in sample_requests(encoded[::2], 1, 0, self.seed) for _ in range(2)],
                strict=True,
            )
        ]
        sampler = self._sampler(opened)
        sampler.submit(asked)
        rollouts = {rollout.request.group_id: rollout for rollout in sampler.run_to_completion()}
        sampler.close()
        return [
            ScoreRequest(one.prompt, rollouts[one.group_id].response, form_prompts=prompts.form_prompts(one.prompt))
            for one in asked
        ]

    def _sampler(self, opened: OpenedPolicy) -> TransformersSampler:
        adapter = opened.source.adapter
        spec = SamplerSpec(
            model=replace(opened.ref, name=absolute(opened.source.base), num_virtual_tokens=opened.num_virtual_tokens),
            worker="bias",
            engine=TransformersEngine(),
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            lora_rank=0 if adapter is None else 1,
            tokenizer=absolute(opened.source.tokenizer_folder),
            num_threads=torch.get_num_threads(),
        )
        sampler = TransformersSampler(spec)
        if adapter is not None:
            sampler.load(load_adapter(adapter))
        return sampler


def reward_of(text: str) -> Reward:
    """A reward model by its folder, hub name or run, or a part of a reward as YAML: `{kind: length, ...}`.

    Raises:
        UserError: it is no part that scores a text by itself.
    """
    if not text.startswith("{"):
        ref = ModelRef(find_reward_model(text), REWARD_MODEL)
        return ModelReward(ref, batch_size=32, max_tokens=256, is_calibrated=False)
    run = load_eval([f"reward.parts=[{text}]", "policy.model=measured", "data.prompts=ours"])
    assert isinstance(run, EvalRun)
    try:
        check_bias(BiasCheckSettings(), run.reward)
    except ValueError as error:
        raise UserError(f"--reward={text}: {error}") from error
    return run.reward.reward
