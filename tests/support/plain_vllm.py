"""vLLM as anybody would use it, on a policy that a run left behind."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Response:
    """Sampled tokens and the log-prob of each."""

    ids: list[int]
    logprobs: NDArray[np.float32]


class PlainVllm:
    """An engine in this process, in float32, with the adapter of a folder on the base that the folder names."""

    def __init__(self, adapter: str) -> None:
        os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
        from vllm import LLM
        from vllm.lora.request import LoRARequest

        config = json.loads((Path(adapter) / "adapter_config.json").read_text())
        self._llm = LLM(
            model=config["base_model_name_or_path"],
            dtype="float32",
            enforce_eager=True,
            enable_lora=True,
            max_lora_rank=max(config["r"], 8),
            distributed_executor_backend="uni",
            kv_cache_memory_bytes=2**26,
            max_num_seqs=8,
        )
        self._request = LoRARequest("policy", 1, adapter)

    def responses(self, prompts: Sequence[NDArray[np.int32]], num_tokens: int) -> list[Response]:
        """The likeliest `num_tokens` tokens after each prompt, with their log-probs at temperature 1."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        outputs = self._llm.generate(
            [TokensPrompt(prompt_token_ids=prompt.tolist()) for prompt in prompts],
            SamplingParams(temperature=0, max_tokens=num_tokens, logprobs=0, ignore_eos=True),
            lora_request=self._request,
            use_tqdm=False,
        )
        found = []
        for (completion,) in (output.outputs for output in outputs):
            ids = list(completion.token_ids)
            chosen = [place[token].logprob for place, token in zip(completion.logprobs, ids, strict=True)]
            found.append(Response(ids, np.array(chosen, np.float32)))
        return found

    def close(self) -> None:
        from vllm.distributed import cleanup_dist_env_and_memory

        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        cleanup_dist_env_and_memory()
