"""Which models: made from scratch, a folder or a hub name; and what of them is trained."""

from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from plumbob.configs.base import Dtype, ModelName, NumTokens, Settings
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.configs.settings.tuning.any_tuning import AlignmentTuning, Tuning, refuse_tasks, virtual_tokens
from plumbob.configs.settings.tuning.encoders import EncoderTuning, WholeEncoder, check_encoder_tuning
from plumbob.configs.settings.tuning.quantization import Nf4Quantization, check_is_frozen
from plumbob.configs.settings.tuning.weights import FullTuning

POLICY_MODEL, POLICY_BASELINE, POLICY_ALSO = "policy.model", "policy.baseline", "policy.also"
REWARD_MODEL = "reward.model"


LayerWidth = Annotated[int, Field(gt=0, le=1_000_000)]
NumHeads = Annotated[int, Field(gt=0, le=10_000)]
NumLayers = Annotated[int, Field(gt=0, le=1_000)]
VocabSize = Annotated[int, Field(gt=0, le=10_000_000)]


@dataclass(frozen=True)
class ModelRef:
    """A model as the settings name it: what every reader of it needs, so that an error names the right setting.

    Attributes:
        name: Hugging Face folder, PEFT adapter folder, `package:NAME/FOLDER` or hub name.
        setting: dotted key that named it; the same model named by two settings is one model.
        trust_remote_code: run the Python code that comes with the model.
        dtype: of its weights.
        quantization: how those that stay frozen are kept in fewer bits; None keeps them in `dtype`.
        num_virtual_tokens: of a soft prompt that is to be put on it.
    """

    name: str
    setting: str = field(compare=False)
    trust_remote_code: bool = False
    dtype: Dtype = "float32"
    quantization: Nf4Quantization | None = None
    num_virtual_tokens: int = 0

    def __str__(self) -> str:
        return f"{self.setting}={self.name}"


class NewModelSettings(Settings):
    """Sizes of a transformer that is made from scratch."""

    vocab_size: VocabSize = 1024
    """Tokens at most: a tokenizer trained on little text has fewer."""
    hidden_size: LayerWidth = 128
    """Width of the layers."""
    num_layers: NumLayers = 2
    """Transformer blocks."""
    num_heads: NumHeads = 4
    """Attention heads, which share the width equally."""
    intermediate_size: LayerWidth = 384
    """Width inside the feed-forward part."""
    max_positions: NumTokens = 256
    """Tokens of the longest text."""


class NewLlamaSettings(NewModelSettings):
    """A Llama-architecture model made from scratch, with a byte-level BPE tokenizer trained on the text."""

    setting: ClassVar[str] = POLICY_MODEL


class NewBertSettings(NewModelSettings):
    """A BERT made from scratch, with a WordPiece tokenizer trained on the text."""

    setting: ClassVar[str] = REWARD_MODEL


class PolicyBaseSettings(Settings):
    trust_remote_code: bool = False
    """Run the Python code that comes with the model."""
    dtype: Dtype = "float32"
    """Of its weights."""

    def ref_to(self, name: str, setting: str) -> ModelRef:
        """The model that `setting` names, loaded as these settings say."""
        return ModelRef(name, setting, self.trust_remote_code, self.dtype)


class FrozenPolicySettings(PolicyBaseSettings):
    """A language model whose own weights stay as they are."""

    quantization: Nf4Quantization | None = None
    """Keeps the weights that stay frozen in fewer bits (QLoRA); None keeps them in `dtype`."""

    def ref_to(self, name: str, setting: str) -> ModelRef:
        return replace(super().ref_to(name, setting), quantization=self.quantization)


class NamedPolicySettings(FrozenPolicySettings):
    """A language model that there is. `model` is a Hugging Face folder, a PEFT adapter folder or a hub name."""

    model: ModelName
    """A full model, or an adapter on one."""

    @property
    def ref(self) -> ModelRef:
        return self.ref_to(self.model, POLICY_MODEL)


class PolicySettings(NamedPolicySettings):
    """The language model of supervised fine-tuning."""

    tuning: Tuning = LoraTuning()

    @property
    def ref(self) -> ModelRef:
        return replace(super().ref, num_virtual_tokens=virtual_tokens(self.tuning))

    @model_validator(mode="after")
    def _check_quantization(self) -> Self:
        check_is_frozen(self.quantization, self.tuning)
        return self


class AlignedPolicySettings(PolicySettings):
    """The language model of an alignment stage: what it begins as is the reference."""

    tuning: AlignmentTuning = LoraTuning()


class TeacherSettings(FrozenPolicySettings):
    """A frozen model that grades what the policy writes, in the learners. Its tokens must be the policy's own."""

    model: ModelName
    """A full model, or an adapter on one."""
    name: Annotated[str, Field(min_length=1, max_length=60)] = "teacher"
    """Of its metrics; of several, also what stands in the column `teachers_by` of the prompts that it grades."""


class NewOrNamedPolicySettings(PolicyBaseSettings):
    """A language model that there is, or that is to be made."""

    model: ModelName | NewLlamaSettings
    """One that there is, or the sizes of one to be made."""

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


class PipelinePolicySettings(NewOrNamedPolicySettings, FrozenPolicySettings):
    """The language model of a pipeline: one made from scratch is pre-trained first, a named one is taken as it is.

    `sft_tuning` is of supervised fine-tuning, `tuning` of PPO and DPO, which start from its result.
    """

    sft_tuning: Annotated[Tuning, AfterValidator(refuse_tasks)] = FullTuning()
    tuning: AlignmentTuning = LoraTuning()

    @property
    def num_virtual_tokens(self) -> int:
        """Of the longest soft prompt that one of its stages puts on it."""
        return max(map(virtual_tokens, (self.sft_tuning, self.tuning)))

    @property
    def ref(self) -> ModelRef | NewLlamaSettings:
        ref = super().ref
        return replace(ref, num_virtual_tokens=self.num_virtual_tokens) if isinstance(ref, ModelRef) else ref

    @model_validator(mode="after")
    def _check_quantization(self) -> Self:
        check_is_frozen(self.quantization, self.sft_tuning, "policy.sft_tuning")
        check_is_frozen(self.quantization, self.tuning)
        return self


class EvaluatedPolicySettings(NamedPolicySettings):
    baseline: ModelName | None = None
    """What the policy is compared with and KL is measured from; None takes what its run began from, or
    an adapter's base."""
    also: tuple[ModelName, ...] = ()
    """Further policies with its tokenizer, each measured as it is: adapters on its base an engine holds at once."""

    @property
    def baseline_ref(self) -> ModelRef | None:
        return None if self.baseline is None else self.ref_to(self.baseline, POLICY_BASELINE)

    @property
    def also_refs(self) -> tuple[ModelRef, ...]:
        return tuple(self.ref_to(name, POLICY_ALSO) for name in self.also)


class EncoderSettings(Settings):
    """The BERT of a stage that trains it: made new, a folder or a hub name."""

    model: ModelName | NewBertSettings
    """One that there is, or the sizes of one to be made."""

    @property
    def encoder(self) -> ModelRef | NewBertSettings:
        return ModelRef(self.model, REWARD_MODEL) if isinstance(self.model, str) else self.model

    @property
    def existing_encoder(self) -> ModelRef:
        """Once there is an encoder, made or named."""
        assert isinstance(self.encoder, ModelRef), f"{REWARD_MODEL} has not been made yet"
        return self.encoder


class RewardEncoderSettings(EncoderSettings):
    max_tokens: NumTokens = 256
    """Of prompt and response together, the reward model's own tokens."""
    tuning: EncoderTuning = WholeEncoder()
    """What of the encoder is trained; its head always is."""
    quantization: Nf4Quantization | None = None
    """Keeps the encoder's weights, beside which LoRA stands, in fewer bits; None keeps them as they are."""

    @property
    def existing_encoder(self) -> ModelRef:
        return replace(super().existing_encoder, quantization=self.quantization)

    @model_validator(mode="after")
    def _check_tuning(self) -> Self:
        check_encoder_tuning(self.tuning, self.quantization, isinstance(self.model, NewBertSettings))
        return self
