"""DeepSpeed, imported once, in the process from which learner ranks are forked."""

from plumbob.trainers.learner.engine import import_deepspeed

import_deepspeed(use_cuda=False)
