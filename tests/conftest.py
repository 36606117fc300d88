"""Read before any test module, which may import transformers and with it Triton."""

import os

import torch

if not torch.cuda.is_available():  # Triton reads this once, when it is first imported
    os.environ["TRITON_INTERPRET"] = "1"
