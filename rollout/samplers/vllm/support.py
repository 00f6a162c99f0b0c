"""What vLLM 0.32 serves, known before it is started: another release is looked up anew here and nowhere else."""

from dataclasses import replace

from plumbob.core.errors import UserError
from plumbob.models.tuning.adapter_support import AdapterSupport

MIN_HEAD_WIDTH = 32
"""vLLM's CPU attention serves heads of 32 and more."""

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Its `MaxLoRARanks`: what the rank of an engine's adapters may be at most."""

MERGED_INTO = frozenset({"GPT2LMHeadModel", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"})
"""Architectures whose weights were read back, of each kind of module, and compared."""

VLLM_SUPPORT = AdapterSupport(
    engine="vLLM",
    instead="set rollout.engine.kind=transformers",
    max_rank=LORA_RANKS[-1],
    # Its classes' `embedding_modules`. Linear layers inside the model it serves for every architecture that takes LoRA.
    embedding_architectures=frozenset(
        f"{name}ForCausalLM"
        for name in (
            *("Apertus", "Ernie4_5", "Exaone4", "ExaoneMoe", "FalconH1", "Granite", "GraniteMoe", "GraniteMoeHybrid"),
            *("GraniteMoeShared", "GraniteMoeSWA", "GraniteSWA", "HyperCLOVAX", "Jamba", "Lfm2", "Lfm2Moe", "Llama"),
            *("Llama4", "MiniCPM3", "Mixtral", "Nemotron", "NemotronH", "Phi3", "Qwen3", "Qwen3Moe"),
        )
    ),
    loads_nothing_else=True,
    # Its registry's classes that do not derive from SupportsLoRA.
    without_adapters=frozenset({"GPT2LMHeadModel"})
    | frozenset(
        f"{name}ForCausalLM"
        for name in (
            *("BailingMoeV2_5", "BailingMoeV3", "Bloom", "Cohere2Moe", "Dbrx", "Falcon"),
            *("FalconMamba", "GPTJ", "Gemma3n", "Glm5Next", "HCXVisionV2", "HrmText"),
            *("IQuestLoopCoder", "KimiLinear", "Mamba", "Mamba2", "MiMoV2", "MiMoV2Flash"),
            *("MiniMaxM3Sparse", "Orion", "StableLm", "Step1", "Step3Text", "Step3p5", "Zamba2"),
        )
    ),
    could_merge_into=MERGED_INTO,
)
"""Of adapters that it computes with beside the base."""

MERGED_SUPPORT = AdapterSupport(
    engine="vLLM",
    instead="set rollout.adapter=lora",
    loads_nothing_else=True,
    merged_into=MERGED_INTO,
)
"""Of adapters that are merged into its weights."""

WEIGHTS_SUPPORT = replace(MERGED_SUPPORT, instead="set rollout.engine.kind=transformers")
"""Of trained weights of the model itself, which take the place of its own."""


def accepted_rank(rank: int) -> int:
    """The smallest maximum rank that vLLM accepts and `rank` fits in."""
    accepted = [limit for limit in LORA_RANKS if limit >= rank]
    if not accepted:
        raise UserError(
            f"an adapter of rank {rank}: {VLLM_SUPPORT.engine} serves LoRA up to rank {max(LORA_RANKS)}; "
            f"lower policy.tuning.rank or {VLLM_SUPPORT.instead}"
        )
    return min(accepted)
