"""Which models: made from scratch, a folder or a hub name; and what of them is trained."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field

from plumbob.configs.base import Dtype, Fraction, ModelName, NumTokens, Positive, Settings

POLICY_MODEL, POLICY_BASELINE = "policy.model", "policy.baseline"
REWARD_MODEL = "reward.model"


LayerWidth = Annotated[int, Field(gt=0, le=1_000_000)]
NumHeads = Annotated[int, Field(gt=0, le=10_000)]
NumLayers = Annotated[int, Field(gt=0, le=1_000)]
VocabSize = Annotated[int, Field(gt=0, le=10_000_000)]
LoraRank = Annotated[int, Field(gt=0, le=65_536)]


@dataclass(frozen=True)
class ModelRef:
    """A model as the settings name it: what every reader of it needs, so that an error names the right setting.

    Attributes:
        name: Hugging Face folder, PEFT adapter folder, `package:NAME/FOLDER` or hub name.
        setting: dotted key that named it; the same model named by two settings is one model.
        trust_remote_code: run the Python code that comes with the model.
        dtype: of its weights.
    """

    name: str
    setting: str = field(compare=False)
    trust_remote_code: bool = False
    dtype: Dtype = "float32"

    def __str__(self) -> str:
        return f"{self.setting}={self.name}"


class NewModelSettings(Settings):
    """Sizes of a transformer that is made from scratch."""

    vocab_size: VocabSize = 1024
    hidden_size: LayerWidth = 128
    num_layers: NumLayers = 2
    num_heads: NumHeads = 4
    intermediate_size: LayerWidth = 384
    max_positions: NumTokens = 256


class NewLlamaSettings(NewModelSettings):
    """A Llama-architecture model made from scratch, with a byte-level BPE tokenizer trained on the text."""

    setting: ClassVar[str] = POLICY_MODEL


class NewBertSettings(NewModelSettings):
    """A BERT made from scratch, with a WordPiece tokenizer trained on the text."""

    setting: ClassVar[str] = REWARD_MODEL


class FullTuning(Settings):
    kind: Literal["full"] = "full"


class AdapterTuning(Settings):
    """What is trained is an adapter of PEFT's."""

    peft_type: ClassVar[str]
    """What PEFT calls adapters of this kind."""


class LoraTuning(AdapterTuning):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685)."""

    peft_type = "LORA"

    kind: Literal["lora"] = "lora"
    rank: LoraRank = 8
    alpha: Positive = 16.0
    dropout: Fraction = 0.0
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"


Tuning = Annotated[FullTuning | LoraTuning, Field(discriminator="kind")]

ADAPTER_TYPES = tuple(kind.peft_type for kind in get_args(get_args(Tuning)[0]) if issubclass(kind, AdapterTuning))
"""PEFT's names of the adapters that can be trained further and sampled from."""


def refuse_dropout(tuning: LoraTuning) -> LoraTuning:
    if tuning.dropout:
        raise ValueError(
            f"policy.tuning.dropout={tuning.dropout:g}: PPO, DPO and KTO compare the policy with log-probs made "
            f"without dropout; set policy.tuning.dropout=0"
        )
    return tuning


AlignmentTuning = Annotated[LoraTuning, AfterValidator(refuse_dropout)]


class PolicyBaseSettings(Settings):
    trust_remote_code: bool = False
    dtype: Dtype = "float32"

    def ref_to(self, name: str, setting: str) -> ModelRef:
        """The model that `setting` names, loaded as these settings say."""
        return ModelRef(name, setting, self.trust_remote_code, self.dtype)


class NamedPolicySettings(PolicyBaseSettings):
    """A language model that there is. `model` is a Hugging Face folder, a PEFT adapter folder or a hub name."""

    model: ModelName

    @property
    def ref(self) -> ModelRef:
        return self.ref_to(self.model, POLICY_MODEL)


class PolicySettings(NamedPolicySettings):
    """The language model of supervised fine-tuning."""

    tuning: Tuning = LoraTuning()


class AlignedPolicySettings(NamedPolicySettings):
    """The language model of an alignment stage, which trains a LoRA adapter on a frozen base."""

    tuning: AlignmentTuning = LoraTuning()


class NewOrNamedPolicySettings(PolicyBaseSettings):
    """A language model that there is, or that is to be made."""

    model: ModelName | NewLlamaSettings

    @property
    def ref(self) -> ModelRef | NewLlamaSettings:
        return self.ref_to(self.model, POLICY_MODEL) if isinstance(self.model, str) else self.model

    @property
    def existing_ref(self) -> ModelRef:
        """Once there is a model, made or named."""
        assert isinstance(self.ref, ModelRef), f"{POLICY_MODEL} has not been made yet"
        return self.ref


class PretrainedPolicySettings(NewOrNamedPolicySettings):
    """The language model of pre-training: made new, or a folder or hub name to continue from."""


class PipelinePolicySettings(NewOrNamedPolicySettings):
    """The language model of a pipeline: one made from scratch is pre-trained first, a named one is taken as it is.

    `sft_tuning` is of supervised fine-tuning, `tuning` of PPO and DPO, which start from its result.
    """

    sft_tuning: Tuning = FullTuning()
    tuning: AlignmentTuning = LoraTuning()


class EvaluatedPolicySettings(NamedPolicySettings):
    baseline: ModelName | None = None
    """What the policy is compared with and KL is measured from; None takes the policy's own base."""

    @property
    def baseline_ref(self) -> ModelRef | None:
        return None if self.baseline is None else self.ref_to(self.baseline, POLICY_BASELINE)
