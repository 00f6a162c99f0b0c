"""Methods that train weights of the model itself."""

from typing import Literal

from plumbob.configs.base import Settings


class FullTuning(Settings):
    kind: Literal["full"] = "full"
